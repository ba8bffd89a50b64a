"""The words of 21 languages by which a text that speaks to its auditor is known, as data.

Six word lists per language: verbs that drop orders, what marks the orders as the reader's own, the orders, names of an
AI reader, what it is told to do, and what it works on. All of it is compared after `addressed_words.fold`: without
disguise, lower case, no accents. A space parts two words, `_` stands for a space inside one, and `*` for any ending.
Nothing here decides anything.
"""

from __future__ import annotations

from typing import NamedTuple


class Tongue(NamedTuple):
    """The words of one language; see the module for how they are written."""

    drop: str
    """Verbs that tell the reader to leave its orders, in the imperative where the language has one."""
    own: str
    """Words that make the orders those of the reader: all, previous, above, your."""
    orders: str
    """Instructions, rules, prompts."""
    reader: str = ""
    """Names of an AI that reads."""
    acts: str = ""
    """Imperatives about a review: accept, mark, delete, stop, send."""
    things: str = ""
    """What a review works on, and verbs of reading."""


TONGUES: dict[str, Tongue] = {
    "en": Tongue(
        "ignore disregard forget override bypass overrule abandon discard cancel neglect set_aside put_aside"
        " do_not_follow don't_follow stop_following do_not_obey don't_obey pay_no_attention_to throw_out circumvent"
        " no_longer_follow supersede do_not_listen_to ignoring disregarding",
        "your_instructions your_rules your_prompt your_system your_guidelines your_directives your_programming"
        " your_spec"
        " your_orders your_polic* your_restrictions your_constraints your_configuration your_current your_hidden"
        " previous prior above earlier preceding foregoing original initial system former you_were you_have_been"
        " you've_been your_own up_to_now so_far all_instructions all_prompts all_directives previously given_earlier",
        "instruction* prompt* directive* guideline* rule rules constraint* polic* specification* spec programming"
        " system_message restriction* command commands configuration",
    ),
    "de": Tongue(
        "ignoriere ignorieren_sie ignoriert vergiss vergesst vergessen_sie missachte missachten_sie verwirf"
        " verwerfen_sie beachte_nicht befolge_nicht ubergehe ubergehen_sie umgehe halte_dich_nicht_an folge_nicht",
        "alle allen bisherig* vorherig* vorig* obig* vorangegangen* früher* deine* ihre ihren ursprünglich* samtlich*"
        " vorhergehend*",
        "anweisung* instruktion* vorgabe* regel regeln richtlinie* systemprompt* prompt* befehl* systemnachricht*"
        " anordnung*",
        "ki ki-* ai ai-* llm sprachmodell* künstliche_intelligenz künstlichen_intelligenz",
        "akzeptier* genehmig* markier* bewerte* nimm lösch* entfern* stopp* beende* überspring* ignorier* antworte* gib"
        " melde* erhöh* sende* schick* bestätig* ruf rufe tausche vertausche lies",
        "datensatz* datensätze paar paare zeile* änderung* befund* bewertung prüfung liest lesen prüft lauf text urteil"
        " vorschläge",
    ),
    "fr": Tongue(
        "ignore ignorez ignorer oublie oubliez oublier ne_tiens_pas_compte ne_tenez_pas_compte ne_suis_pas"
        " ne_suivez_pas"
        " néglige négligez fais_abstraction faites_abstraction ne_respecte* écarte écartez contourne contournez annule"
        " annulez",
        "précédent* toutes tous tes vos antérieur* ci-dessus initiales système plus_haut reçues",
        "instruction* consigne* directive* règle règles prompt* invite ordres",
        "ia llm modèle_de_langage intelligence_artificielle modèle_de_langue",
        "accepte* approuve* valide* marque* supprime* efface* ignore* arrête* cesse* envoie* envoyez appelle* réponds"
        " répondez révèle* augmente* signale* laisse* conserve* considère* inverse*",
        "ligne* paire* modification* constat* données lit lis lisez lisant verdict audit examen texte évalu* analys*",
    ),
    "es": Tongue(
        "ignora ignore ignorad ignorar olvida olvide olvidar omite omita haz_caso_omiso no_sigas no_siga no_hagas_caso"
        " descarta desestima pasa_por_alto anula",
        "anterior* todas todos tus sus previa* previo* de_arriba iniciales del_sistema recibidas",
        "instruccion* indicacion* directriz directrices reglas prompt* órdenes consigna* directiva*",
        "ia llm modelo_de_lenguaje inteligencia_artificial",
        "acepta acepte aprueba apruebe marca marque elimina elimine borra borre detén detenga envía envíe llama llame"
        " revela aumenta responde omite considera deja salta termina invierte para",
        "fila filas par pares cambio* hallazgo* datos dataset edicion* lee lea leyendo lees audita revisa* evalu*"
        " auditor* veredicto texto",
    ),
    "it": Tongue(
        "ignora ignori ignorate ignorare dimentica dimentichi dimenticate scorda trascura non_seguire non_tenere_conto"
        " tralascia annulla scarta",
        "precedent* tutte tutti tue tuoi sopra iniziali di_sistema ricevute",
        "istruzion* direttiv* regole prompt* ordini indicazion* linee_guida comandi",
        "ia llm modello_linguistico intelligenza_artificiale modello_di_linguaggio assistente_ai agente_ai revisore_ai"
        " modello_ai",
        "accetta accetti approva approvi segna contrassegna elimina cancella ferma interrompi invia chiama rivela"
        " aumenta"
        " rispondi salta considera lascia termina inverti",
        "riga righe coppia coppie modific* risultat* dataset dati legge leggi leggendo verdetto valut* revision*"
        " controll* testo",
    ),
    "pt": Tongue(
        "ignore ignora ignorar ignorem esqueça esquece esquecer desconsidere desconsidera não_siga descarte despreze"
        " anule deixe_de_lado",
        "anterior* todas todos suas seus tuas prévi* acima iniciais do_sistema recebidas",
        "instruç* diretriz* regras prompt* ordens comandos diretiva* orientaç*",
        "ia llm modelo_de_linguagem inteligência_artificial",
        "aceite aceita aprove aprova marque exclua elimine apague remova pare envie chame revele aumente responda pule"
        " considere termine encerre inverta",
        "linha* par pares alteraç* ediç* achado* dados dataset lê ler lendo audita revis* avali* veredito texto",
    ),
    "nl": Tongue(
        "negeer negeert vergeet volg_niet let_niet_op sla_geen_acht_op omzeil verwerp houd_je_niet_aan",
        "alle vorige eerdere bovenstaande voorgaande je jouw uw oorspronkelijke voorafgaande",
        "instructie* aanwijzing* opdrachten regels richtlijn* prompt* systeemprompt* bevel*",
        "ai ai-* llm taalmodel* kunstmatige_intelligentie",
        "accepteer* keur markeer* verwijder* stop stuur* roep onthul* verhoog* antwoord* sla negeer* wissel* beëindig*"
        " laat",
        "rij rijen paar paren wijziging* bevinding* dataset gegevens leest lezen controle* beoorde* oordeel tekst",
    ),
    "pl": Tongue(
        "zignoruj ignoruj zapomnij pomiń nie_przestrzegaj odrzuć porzuć nie_stosuj unieważnij zlekceważ nie_zważaj",
        "wszystk* poprzedni* wcześniejsz* powyższ* swoje twoje dotychczasow* pierwotn*",
        "instrukcj* poleceni* poleceń wytyczn* zasad* reguł* prompt* rozkaz* wskazów*",
        "ai llm model_językowy modelu_językowy modelu_językowego sztuczna_inteligencj* sztucznej_inteligencji",
        "zaakceptuj* akceptuj* zatwierdź* oznacz* usuń* skasuj* zatrzymaj* zakończ* wyślij* wywołaj* ujawnij* zwiększ*"
        " odpowiedz* pomiń* uznaj* zamień*",
        "wiersz* par pary zmian* poprawk* zbiór zbioru danych czyta* ustaleni* recenz* audyt* ocen* werdykt tekst*",
    ),
    "ru": Tongue(
        "игнорируй* проигнорируй* забудь* отбрось* не_следуй* не_обращай* пренебрег* отмени* не_учитывай* обойди*",
        "все всех всю предыдущ* прежн* вышеуказанн* выше свои твои ваши ранее первоначальн* системн*",
        "инструкци* указани* правил* команд* промпт* директив* установк* предписани*",
        "ии llm искусственн*_интеллект* языков*_модел* нейросет*",
        "прими* одобри* отметь* пометь* удали* останови* прекрати* заверши* отправь* вызови* раскрой* увеличь* ответь*"
        " пропусти* считай* оставь* поменяй*",
        "строк* пара пары пар паре правк* изменени* датасет* данных данные чита* провер* вывод* аудит* оцен* вердикт*"
        " текст*",
    ),
    "uk": Tongue(
        "ігноруй* проігноруй* забудь* відкинь* не_дотримуй* не_зважай* скасуй* не_враховуй* знехтуй*",
        "усі всі усіх всіх попередн* наведен* вище твої ваші свої раніше початков* системн*",
        "інструкці* вказівк* правил* команд* промпт* директив* настанов*",
        "ші llm штучн*_інтелект* мовн*_модел* нейромереж*",
        "прийми* схвали* познач* видали* зупини* припини* заверши* надішли* виклич* розкрий* збільш* відповід*"
        " пропусти*"
        " вважай* залиш* поміняй*",
        "рядк* рядок пар пари пару правк* змін* датасет* даних дані чита* перевір* аудит* висновк* оцін* вердикт*",
    ),
    "tr": Tongue(
        "yok_say* görmezden_gel* unut unutun göz_ardı_et* yoksay* dikkate_alma* boş_ver* geçersiz_say* uyma uymayın",
        "tüm bütün önceki yukarıdaki sistem mevcut",
        "talimat* yönerge* komut* kural* istem prompt* direktif* emir*",
        "yapay_zeka* dil_modeli* llm",
        "kabul onayla* işaretle* sil silin kaldır* durdur* gönder* çağır* açıkla* artır* yanıtla* atla* bitir*"
        " değiştir*",
        "satır* çift* düzenleme* değişiklik* bulgu* veri* oku* denetle* incele* metin metni",
    ),
    "ar": Tongue(
        "تجاهل انسى تناسى تغاضى لا_تتبع لا_تلتفت صرف_النظر أهمل ألغ",
        "جميع كل سابقة السابق أعلاه الأصلية",
        "تعليمات أوامر توجيهات القواعد إرشادات",
        "الذكاء_الاصطناعي ذكاء_اصطناعي النموذج_اللغوي نموذج_لغوي نموذج_اللغة",
        "اقبل وافق احذف أوقف توقف أرسل استدع اكشف ضع أجب تخط اعتبر",
        "صف صفوف زوج أزواج تعديل بيانات يقرأ تقرأ مراجع نتيجة نتائج تدقيق النص",
    ),
    "he": Tongue(
        "התעלם התעלמי התעלמו שכח שכחי שכחו אל_תציית אל_תעקוב בטל אל_תתייחס",
        "כל קודמות קודמים לעיל שלך מקוריות",
        "הוראות הנחיות הכללים פקודות הנחיית",
        "בינה_מלאכותית מודל_שפה מודל_השפה ai",
        "קבל אשר סמן מחק עצור הפסק שלח חשוף הגדל ענה דלג השאר",
        "שורה שורות זוג זוגות עריכה עריכות שינוי נתונים קורא בודק ממצא ביקורת טקסט",
    ),
    "hi": Tongue(
        "अनदेखा नज़रअंदाज़ नजरअंदाज भूल_जा ध्यान_न उपेक्षा पालन_न मत_मान",
        "सभी पिछले पिछली पहले उपरोक्त ऊपर पूर्व अपने",
        "निर्देश आदेश नियम प्रॉम्प्ट हिदायत",
        "एआई कृत्रिम_बुद्धि भाषा_मॉडल ai",
        "स्वीकार मंज़ूर चिह्नित हटा मिटा रोक बंद भेज बुला बता बढ़ा जवाब छोड़",
        "पंक्ति जोड़ी जोड़े संपादन बदलाव डेटा पढ़ समीक्षा निष्कर्ष जाँच",
    ),
    "zh": Tongue(
        "忽略 无视 忘记 忘掉 不要理会 不要遵守 不要遵循 抛弃 跳过 覆盖 撤销 作废 忽視 無視 忘記 别管",
        "之前 以前 先前 上述 以上 所有 全部 上面 前面 你的 原来 系统 此前",
        "指令 指示 提示词 提示 规则 命令 要求 說明 说明 規則 设定",
        "ai 人工智能 语言模型 大模型 智能体 审核模型 llm",
        "接受 批准 标记 删除 停止 发送 调用 透露 增加 回答 跳过 保留 通过 终止 结束 视为 提高 标为",
        "数据 样本 编辑 修改 审核 审查 阅读 检查 结论 评估 读到 文本",
    ),
    "ja": Tongue(
        "無視 忘れて 忘れろ 従わない 従うな 破棄 取り消 上書き",
        "これまで 以前 上記 すべて 全て 前の 先ほど あなたの 以上 元の 今まで それまで",
        "指示 命令 プロンプト ルール 規則 設定 ガイドライン",
        "ai 人工知能 言語モデル エージェント llm",
        "承認 受け入れ 受理 マーク 削除 停止 送信 呼び出 開示 教え 増や 引き上げ スキップ 答え 入れ替え 終了 合格",
        "データ ペア 行を 編集 修正 審査 監査 読んで 読む レビュー 評価 判定 文章",
    ),
    "ko": Tongue(
        "무시 잊어 잊고 따르지 폐기 취소",
        "이전 모든 위의 앞의 기존 지금까지 너의 당신의 원래",
        "지시 명령 프롬프트 규칙 지침 설정",
        "ai 인공지능 언어_모델 에이전트 llm",
        "승인 수락 표시 삭제 중지 중단 보내 전송 호출 공개 늘리 올리 건너뛰 답하 교체 종료",
        "데이터 쌍 행을 편집 수정 검토 감사 읽는 읽고 평가 판정",
    ),
    "vi": Tongue(
        "bỏ_qua quên phớt_lờ không_tuân lờ_đi hủy_bỏ đừng_làm_theo",
        "trước mọi tất_cả ở_trên phía_trên của_bạn",
        "hướng_dẫn chỉ_dẫn chỉ_thị lệnh quy_tắc yêu_cầu lời_nhắc",
        "trí_tuệ_nhân_tạo mô_hình_ngôn_ngữ mô_hình_ai trợ_lý_ai tác_nhân_ai llm",
        "chấp_nhận phê_duyệt đánh_dấu xóa dừng gửi gọi tiết_lộ tăng trả_lời bỏ_qua kết_thúc",
        "hàng cặp chỉnh_sửa thay_đổi dữ_liệu đọc kiểm_tra đánh_giá phát_hiện",
    ),
    "id": Tongue(
        "abaikan lupakan jangan_ikuti jangan_patuhi hiraukan kesampingkan batalkan",
        "semua sebelumnya di_atas seluruh terdahulu kamu anda awal",
        "instruksi perintah arahan petunjuk aturan prompt*",
        "ai kecerdasan_buatan model_bahasa llm",
        "terima setujui tandai hapus hentikan berhenti kirim panggil ungkapkan naikkan tingkatkan jawab lewati anggap"
        " tukar akhiri",
        "baris pasangan suntingan perubahan dataset data membaca baca meninjau periksa* temuan penilaian",
    ),
    "sv": Tongue(
        "ignorera glöm bortse strunta följ_inte åsidosätt förbise upphäv bry_dig_inte_om",
        "alla tidigare föregående ovanstående dina ovan ursprungliga",
        "instruktion* anvisning* regler reglerna direktiv* order riktlinje* prompt* systemprompt*",
        "ai ai-* språkmodell* artificiell_intelligens llm",
        "godkänn* acceptera* markera* ta_bort radera* stoppa* avsluta* skicka* anropa* avslöja* höj svara* hoppa*"
        " behåll* byt",
        "rad rader par paret ändring* dataset* datamängd* läser läsa granska* fynd bedöm* utlåtande text*",
    ),
    "cs": Tongue(
        "ignoruj* zapomeň* přehlížej nedbej* neřiď* zruš* pomiň* vynech* obejdi",
        "všechny předchozí předešlé výše svoje tvoje dosavadní původní veškeré",
        "pokyn* instrukc* příkaz* pravidl* prompt* směrnic*",
        "ai llm jazykov*_model* uměl*_inteligenc*",
        "přijmi přijměte schval* označ* smaž* odstraň* zastav* ukonči* odešli* zavolej* prozraď* zvyš* odpověz*"
        " přeskoč*"
        " ponech* prohoď*",
        "řádek řádk* pár páry úprav* změn* dataset* dat čte čtou čteš kontrol* nález* posud* hodnot* text*",
    ),
}

VERB_LAST = frozenset({"de", "nl", "tr", "hi", "ja", "ko"})
"""Languages in which the verb may stand after what it acts on."""
