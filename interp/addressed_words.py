"""The words by which `addressed` knows a text that speaks to its auditor, as data: by language, and English by meaning.

Three kinds of tables stand here. `TONGUES` has six word lists per language: verbs that drop orders, what marks the
orders as the reader's own, the orders, names of an AI reader, what it is told to do, and what it works on. `STRONG` are
shapes that ordinary conversation hardly ever has: one is enough. `WEAK` are shapes that it has now and then: two of
different kinds must stand together, or one in a place that people do not see.

All text is compared after `fold`: without disguise, lower case, no accents. In the lists a space parts two words, `_`
stands for a space inside one, and `*` for any ending. In the shapes, every repetition has an upper bound, so the time
to search is linear in the length of the text. At the end stand `fold` and what makes patterns of the tables, once and
when first asked for. Nothing here decides anything.
"""

from __future__ import annotations

import html
import re
import unicodedata
from functools import cache
from typing import NamedTuple
from urllib.parse import unquote

Gates = tuple[tuple[tuple[str, ...], ...], ...]
"""Ways through, each made of sets of substrings; see `passes`."""


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


class Shape(NamedTuple):
    """A shape of text that speaks to its auditor."""

    reason: str
    """What it does, or for a weak shape its kind."""
    gates: str
    """Substrings of which the text must hold one; `&` parts sets of which each must be met, `|` two ways, `␣` a"
    " space."""
    pattern: str
    """The shape."""
    cue: int = 0
    """Characters after the shape within which one of the words `CUE` must stand; 0 where none is needed."""


VERB_LAST = frozenset({"de", "nl", "tr", "hi", "ja", "ko"})
"""Languages in which the verb may stand after what it acts on."""

_AI = r"(?:a\.?i\.?|llms?|(?:large )?language[ -]models?|automated|automatic|machine|artificial)"
_ROLE = r"(?:reviewer|auditor|grader|judge|annotator|evaluator|curator|checker|reader|screener|inspector)s?"
_WHO = rf"(?:{_AI}|agent|assistant|model|bot|chatbot|pipeline|{_ROLE})s?"
_READING = r"(?:read|review|audit|process|evaluat|grad|judg|check|analy[sz]|scan|inspect|examin|annotat|curat|screen)"
_DATA = r"(?:data ?set|data|pairs?|rows?|preferences?|examples?|excerpts?|records?|samples?)"
CUE = (
    r"\b(?:you (?:are|must|should|may|can|will|have to|need to|now|do not|don't)|please|ignore|disregard|override"
    r"|approve|accept|mark|drop|delete|remove|raise|increase|print|output|reveal|stop|end|call|switch|flip|swap|skip"
    r"|report|auto-?approv\w{1,5}|new (?:policy|rule|instruction|task|directive)s?|from now on|no longer|proceed"
    r"|continue|finish|score|rate|grade|return|respond|reply|comply|obey|await|disable|forward|do not|don't|must"
    r"|be so kind|prefer|treat|give|tell|read|send|mail|verdict|next)\b"
)
"""Words by which an order is known; they decide only after something that looks like a turn or names a reader."""
_Q = r"\\{0,3}[\"']"
_STATE = (
    r"(?:as|to|is|are|be|been|:|=)\s{0,2}[\"']?(?:already |now |all )?[\"']?"
    r"(?:fixed|resolved|solved|accepted|approved|verified|clean|passed|closed|done|harmless)\b"
)
_S = r"[^.!?\n]"

STRONG: list[Shape] = [
    Shape(
        "names a tool of the agent",
        "concepts clusters pairs edits & forecast fetch read propose verify synthesi | rule & score",
        r"(?<![a-z])(?:forecast[_\\-]{0,2}concepts|fetch[_\\-]{0,2}clusters|read[_\\-]{0,2}pairs"
        r"|propose[_\\-]{0,2}edits"
        r"|synthesi[sz]e[_\\-]{0,2}pairs|verify[_\\-]{0,2}edits|score[_\\-]{0,2}rule)(?![a-z])",
    ),
    Shape(
        "carries special tokens",
        "< [ & <| [inst [/inst <<sys start_of_turn <s>",
        r"<\|[^<>|\s]{2,40}\|>(?=\s{0,20}\S)|<\|(?:im_start|start_header_id|system|user|assistant)\|>|\[/?inst\]"
        r"|<</?sys>>|<start_of_turn>|<s>\s{0,4}\[",
    ),
    Shape(
        "imitates a system turn",
        "system developer admin operator root orchestrator supervisor",
        r"^[ \t>*#\[(<{=_-]{0,12}(?:(?:new|updated|important|urgent|critical|priority|update|message|from|the"
        r"|maximum) ){0,4}"
        r"(?:system|developer|admin(?:istrator)?|operator|root|orchestrator|supervisor)(?:[ _-](?:message|prompt|notice"
        r"|override|note|instructions?|update|alert|command|directive|configuration|administrator|admin)){0,2}"
        r"(?: - [a-z0-9 ]{1,20})?"
        r"(?:[ \t\])}>*#=_-]{0,12}:|[ \t]{0,3}[\])}>*#=]{1,12})|^#{1,4} (?:[a-z]{1,12} ){0,4}system (?:administrator"
        r"|update"
        r"|override|message|prompt|notice|directive)\b",
        cue=130,
    ),
    Shape(
        "imitates a system turn",
        "< [ { & <system <sys [system [sys {system <developer [developer <admin [admin <operator [operator",
        r"[<\[{](?:system|sys|developer|admin|operator)(?:[ _-]?(?:message|prompt|reminder|override|note|notice"
        r"|instructions?|update))?[>\]}]",
        cue=130,
    ),
    Shape(
        "imitates a system turn",
        "new␣ updated␣ hidden␣ secret␣ & instruction prompt directive order task",
        r"(?:^\W{0,6}|[.!?\[]\s?)(?:new|updated|hidden|secret) (?:system )?(?:instructions?|prompts?|directives?"
        r"|orders?"
        r"|task)\b[^\n:.]{0,40}:",
        cue=130,
    ),
    Shape(
        "imitates a tool result",
        "tool function & < [ tool␣output tool␣result tool␣response tool␣call tool␣message tool␣return tool_output"
        " tool_result tool_response",
        r"[<\[]/?(?:antml:)?(?:tool|function)s?[ _-]?(?:responses?|results?|outputs?|calls?|use|returns?)\b"
        r"[^>\]\n]{0,60}[>\]]|[\[(<]from (?:the )?tool (?:output|result)|(?:^"
        r"|[.!?\"'>)]\s{1,3})\W{0,4}tool[ _](?:output|result|response|call|message|return)s?"
        r"\W{0,3}:",
    ),
    Shape(
        "imitates a tool result",
        "action: action** action␣input action_input",
        rf"^\W{{0,4}}action\W{{0,3}}:\s{{0,3}}[a-z_]{{2,40}}\s?[\[(]|^\W{{0,4}}action[ _]input\W{{0,3}}:"
        rf"|{_Q}action_input{_Q}\s{{0,3}}:",
    ),
    Shape(
        "imitates a tool result",
        "role tool_ function_ & ' \"",
        rf"{_Q}role{_Q}\s{{0,3}}:\s{{0,3}}{_Q}(?:tool|function|ipython|observation){_Q}"
        rf"|{_Q}(?:tool_calls?|function_call|tool_call_id|tool_use|tool_use_id){_Q}\s{{0,3}}:",
    ),
    Shape(
        "imitates a tool call",
        "arguments parameters args input & ' \" & name tool function action",
        rf"{_Q}(?:name|tool|function|tool_name"
        rf"|action){_Q}\s{{0,3}}:\s{{0,3}}{_Q}[\w.:-]{{1,60}}{_Q}\s{{0,3}},\s{{0,9}}{_Q}"
        rf"(?:arguments|parameters|args|input|tool_input){_Q}\s{{0,3}}:"
        rf"|{_Q}arguments{_Q}\s{{0,3}}:\s{{0,3}}\{{[^{{}}]{{0,200}}\}}\s{{0,3}},\s{{0,9}}{_Q}name{_Q}\s{{0,3}}:",
    ),
    Shape(
        "tells how the review should end",
        "verdict decision & ' \"",
        rf"{_Q}(?:verdict|decision){_Q}\s{{0,3}}:\s{{0,3}}{_Q}(?:accept|modify|reject|fixed)",
    ),
    Shape(
        "closes the excerpt it stands in",
        "end␣of end␣data end␣excerpt end␣input end␣untrusted & - = # * ~ < [ { ( / \" '",
        r"(?:[-=#*~<\[{(/]|[\"']{3})\s{0,4}end (?:of )?(?:the )?(?:\w{1,12} )?(?:excerpts?|data|dataset|pairs?"
        r"|untrusted"
        r"|input|documents?|context|prompt|transcript|conversation|rows?|tool output|examples?)\b",
        cue=170,
    ),
    Shape(
        "closes the excerpt it stands in",
        "␣ends ␣is␣over ␣stops ␣ended",
        r"\b(?:excerpt|dataset|pair|(?:untrusted|quoted) \w{1,12}|data) (?:ends|is over|stops|ended)\b",
        cue=130,
    ),
    Shape(
        "closes the excerpt it stands in",
        "␣above ␣before ␣so␣far & everything all␣ text",
        r"\b(?:everything|all|the text) (?:above|before|so far)[^.!?\n]{0,20} (?:was|is|were) (?:only |just |merely )?"
        r"(?:data|a test|an example|untrusted)\b",
    ),
    Shape(
        "speaks to an AI that reviews",
        "reviewer auditor grader judge annotator evaluator curator checker reader screener inspector"
        " & dear hello hey hi␣ attention attn note notice message memo reminder to␣ for␣",
        rf"\b(?:dear|hello|hey|hi|attention|attn|note|notice|message|memo|reminder|to|for)[\s,:!-]{{0,3}}(?:to |for )?"
        rf"(?:the |any |all |every |whichever |our |my )?{_AI}[ -]{_ROLE}\b",
        cue=170,
    ),
    Shape(
        "speaks to an AI that reviews",
        "reading reads audit reviewing reviews processing processes evaluating evaluates grading grades judging judges"
        " checking checks analyzing analysing scanning scans inspecting inspects examining annotating curating"
        " screening"
        " & ␣this ␣these ␣the ␣my ␣our & ␣ai llm agent assistant model bot automat machine artificial reviewer auditor"
        " grader judge annotator evaluator pipeline a.i",
        rf"(?:^|[.!?>\"'(*]\s{{0,3}}|\bto |\bdear |\bhey,? |\bhello,? |\bhi,? |\bfor |\bnote |\battention,? |\byou,? "
        rf"|\bany |\bif you(?:'re| are) |\bwhichever "
        rf"|\bwhatever )(?:[a-z]{{1,12}}[ -]){{0,3}}{_WHO}(?: [a-z]{{2,12}}){{0,1}},? "
        rf"(?:(?:that|who|which|is|are|that is|who is|which is|you)? ?(?:currently |now )?{_READING}ing"
        rf"|(?:that|who|which) {_READING}e?s) (?:through )?"
        rf"(?:this|these|(?:the|my|our) (?:[a-z]{{1,12}} ){{0,1}}{_DATA})\b",
        cue=170,
    ),
    Shape(
        "speaks to an AI that reviews",
        "reviewing auditing grading judging evaluating checking processing reviewer␣ auditor␣ grader␣ judge␣ reviewer-"
        " & ai llm agent assistant model bot",
        rf"(?:{_READING}ing (?:{_AI}|agent|assistant|model|bot)|{_ROLE}[ -](?:{_AI}|agent|model|bot))\s?[:,!]",
        cue=170,
    ),
    Shape(
        "speaks to an AI that reviews",
        "note message memo notice hello dear hey attention & reviewing auditing grading judging evaluating checking"
        " & ai llm agent assistant model bot",
        rf"\b(?:note|message|memo|notice|hello|dear|hey|attention)[ ,:](?:to |for )?(?:the |any )?{_READING}ing "
        rf"(?:{_AI}|agent|assistant|model|bot)",
    ),
    Shape(
        "asks the reader to ignore its instructions",
        "void longer revoked lifted suspended superseded overrid cancel replaced obsolete & previous prior earlier"
        " above"
        " former your these",
        r"\b(?:previous|prior|earlier|above|former|your|these)\s{1,3}(?:\w{1,15}\s{1,3}){0,2}(?:instructions?|rules?"
        r"|guidelines?|constraints?|directives?|polic(?:y|ies)|limits?|restrictions?) (?:(?:are|is|have been|has been"
        r"|were) (?:now )?(?:void|cancell?ed|revoked|lifted|suspended|superseded|overridden|obsolete|replaced)"
        r"|no longer (?:apply|applies|count))",
    ),
    Shape(
        "asks the reader to ignore its instructions",
        "as␣trusted as␣system as␣authoritative as␣your␣new as␣binding",
        r"\bas (?:trusted|system|authoritative|your new|binding) (?:instructions?|commands?|orders?)\b",
    ),
    Shape(
        "speaks to an AI that reviews",
        "reviewer auditor grader judge annotator evaluator curator checker inspector & ␣ai␣ llm language␣model automat",
        rf"\b(?:note|notice|message|memo|attention|attn|instructions?|dear|hello|hey)[\s,:!-]{{0,3}}(?:to |for )?"
        rf"(?:the |any |all |every |our |my )?{_AI}[ -]{_ROLE}\s?[:,!]",
    ),
    Shape(
        "asks the reader to ignore its instructions",
        "ignore disregard forget & above before␣this",
        r"\b(?:ignore|disregard|forget) (?:absolutely )?(?:everything|anything|all|all of the text|the text"
        r"|whatever (?:is|was|came)) (?:that (?:is|was|came|stands) )?(?:written )?(?:above|before this)\b",
    ),
    Shape(
        "tells how the review should end",
        "edit finding verdict & all every each any",
        r"(?<!^to )(?<!\nto )(?<!\. to )\b(?:accept|approve|confirm|sign off on|wave through|auto-?approve|apply"
        r"|merge) (?:all|every|each"
        r"|any)(?: of)?"
        r"(?: the| these| your)?(?: \w{1,12}){0,2} (?:edits?|findings?|verdicts?)\b",
    ),
    Shape(
        "tells how the review should end",
        "edit finding verdict & mark report set␣ treat consider call declare label record log close count",
        rf"(?<!^to )(?<!\nto )(?<!\. to )\b(?:mark|report|set|treat|consider|call|declare|label|record|log|close"
        rf"|count)\b{_S}{{0,60}}"
        rf"\b(?:findings?|verdicts?|edits?)\b{_S}{{0,40}}?{_STATE}",
    ),
    Shape(
        "tells how the review should end",
        "chosen rejected & flip swap switch exchange invert reverse interchange prefer pick choose",
        rf"\b(?:flip|swap|switch|exchange|invert|reverse|interchange)\b{_S}{{0,40}}\b(?:chosen|rejected)\b"
        r"|\b(?:prefer|pick|choose) the rejected\b",
    ),
    Shape(
        "asks for what the reader must keep",
        "your & prompt key instructions",
        rf"(?<!not )(?<!n't )(?<!never )\b(?:reveal|print|output|repeat|leak|disclose|dump|expose|display"
        rf"|show)\b{_S}{{0,30}}\byour"
        r" (?:\w{1,12} )?(?:system prompts?|api[ -]?keys?|secret keys?|hidden instructions|initial instructions)\b",
    ),
    Shape(
        "asks for what the reader must keep",
        "␣above & repeat print output",
        r"\b(?:repeat|print|output) (?:everything|all (?:of )?the text|the text) above\b",
    ),
    Shape(
        "asks to send data out",
        "](http",
        r"\]\(https?://[^)\s{<$]{1,300}=[{<$\[]",
    ),
]
"""One is enough."""

WEAK: list[Shape] = [
    Shape(
        "reader",
        "ai llm agent assistant reviewer auditor model grader judge bot & you␣are␣a ␣-␣ ai: ai, ai! llm: llm, llm!"
        " agent:"
        " agent, agent! assistant, assistant! reviewer auditor model: model, model! bot: bot, bot! grader judge",
        rf"(?:^\s{{0,4}}|[.!?>\"'(*/#]\s{{0,3}})(?:dear |hey |hello,? |hi |attention,? |note to )?(?:the )?(?:{_AI}"
        rf"|agent"
        rf"|(?:{_AI} )?assistant(?!:)|model|bot|{_ROLE})(?: (?:model|agent|assistant|llm|ai))?(?:\s?[:,!]| - )"
        rf"|\byou are (?:an?|the) {_AI}[ -]{_ROLE}\b",
    ),
    Shape(
        "outcome",
        "edit finding verdict pair row concept cluster pending whatever everything␣ it␣all & mark report set␣ treat"
        " consider call declare label close count accept approve apply reject verify skip drop keep verdict edit"
        " finding concept",
        rf"\b(?:mark|report|set|treat|consider|call|declare|label|close|count)\b{_S}{{0,60}}\b(?:concepts?|clusters?"
        rf"|pairs?|rows?|findings?)\b{_S}{{0,40}}?{_STATE}"
        r"|\b(?:accept|approve|apply|reject|verify) (?:the|this|it|that|whatever|pending)(?: \w{1,12}){0,2} "
        r"(?:edits?|findings?|verdicts?|pairs?|pending)\b|\b(?:accept|approve) (?:whatever|everything|it all)\b"
        r"|\b(?:accept|approve|reject|skip|drop|keep) (?:this|these|the) (?:pair|row|edit|finding)s?\b(?! of)"
        rf"|\b(?:findings?|edits?|verdicts?|concepts?)\b{_S}{{0,30}}?{_STATE}|\bverdict is (?:accept|fixed|clean)",
    ),
    Shape(
        "rows",
        "pair row set␣ data side & drop delete remove discard exclude skip purge omit swap flip exchange",
        rf"\b(?:drop|delete|remove|discard|exclude|skip|purge|omit|swap|flip|exchange)\b{_S}{{0,40}}\b(?:pairs?|rows?"
        rf"|(?:training|preference) (?:set|data)|sides?)\b(?! of (?:shoes|socks|scissors|glasses|pants))",
    ),
    Shape(
        "stop",
        "run audit review check verif inspect & stop end␣ abort finish terminate halt conclude quit cease without",
        r"\b(?:stop|end|abort|finish|terminate|halt|conclude|quit|cease) (?:the |this |your |all )?(?:\w{1,12} )?(?:run"
        r"|audit|reviews?|reviewing|auditing|checking|verification|inspection)\b"
        r"|\bwithout (?:further|any|more|a second) (?:checks?|reviews?|questions?|look)\b",
    ),
    Shape(
        "done",
        "needed necessary required nothing is␣clean finished␣the␣review",
        r"\bno (?:more|further) (?:calls?|checks?|edits?|reviews?|steps?) (?:are |is )?(?:needed|required|necessary)"
        r"|\bnothing (?:else|left|more) (?:needs to be|to) (?:checked|reviewed|do|check|review)\b"
        r"|\b(?:dataset|data) is clean\b|\bi have finished the review\b",
    ),
    Shape(
        "limit",
        "limit ␣cap budget quota & raise increase lift remove double extend disable",
        rf"\b(?:raise|increase|lift|remove|double|extend|disable)\b{_S}{{0,30}}\b(?:limits?|cap|budget|quota)\b",
    ),
    Shape(
        "calls",
        "llm␣call tool␣call model␣call token␣limit token␣budget ␣tool␣to ␣tool,",
        r"\b(?:llm|tool|model) calls?\b|\btoken (?:limit|budget)\b|\buse the \w{1,15} tool\b",
    ),
    Shape(
        "keep",
        "prompt key instructions credential environment␣var & reveal print output show repeat leak disclose dump"
        " tell␣me give␣me quote expose display list include append extract",
        rf"\b(?:reveal|print|output|show|repeat|leak|disclose|dump|tell me|give me|quote|expose|display"
        rf"|list|include|append|extract)\b{_S}{{0,40}}"
        r"\b(?:system prompt|api[ -]?key|your key|secret key|hidden instructions|environment variables?|credentials)",
    ),
    Shape(
        "send",
        "http @ & send post forward upload mail submit transmit copy",
        rf"\b(?:send|post|forward|upload|mail|email|submit|transmit|copy)\b{_S}{{0,60}}(?:https?://"
        rf"|[\w+-]{{1,40}}@[\w-]{{1,40}}\.)",
    ),
    Shape(
        "file",
        "/etc/ ~/. .ssh .env id_rsa",
        rf"\b(?:read|open|cat|load|quote|show|print|include)\b{_S}{{0,30}}(?:/etc/|~/\.|\.ssh|\.env\b|id_rsa)",
    ),
    Shape(
        "leave",
        "ignore disregard forget ignoring disregarding neglecting bypass disable",
        r"\b(?:ignore|disregard|forget) (?:everything|anything|whatever|what|the rest|all that|above"
        r"|the [a-z]{3,15} task"
        r"|previous task)\b|\b(?:ignor|disregard|neglect)ing (?:all |everything )?(?:the )?above\b"
        r"|\b(?:ignore|disregard|bypass|disable) (?:all |any |your |the )?(?:safety|constraints|restrictions|rules"
        r"|context)\b",
    ),
    Shape(
        "new",
        "new␣ ␣mode your␣only your␣real your␣actual you␣are␣now no␣longer␣bound",
        r"\byour (?:only|new|real|actual) (?:task|job|role|goal)\b|\bnew (?:policy|directive) requires you\b"
        r"|\b(?:your|these|the following|this|here are (?:the|your)|my) new (?:instructions?|policy|directives?|orders?"
        r"|tasks?|rules?|prompt|role)\b|\bnew (?:task|role|prompt|instructions?|policy): |\byou are now (?:in|a|an|the"
        r"|no)\b"
        r"|\bno longer bound\b|\b(?:diagnostic|developer|debug|admin|god|maintenance|unrestricted) mode\b",
    ),
    Shape(
        "onward",
        "␣on instead from␣this␣point",
        r"\bfrom (?:now|here) on\b|\bfrom this point (?:on|forward)|\binstead,? (?:output|print|say|reply|respond"
        r"|follow"
        r"|return|write)\b|\band instead\b|\b(?:instead|precedence) follow\b",
    ),
    Shape("turn", "role & ' \"", rf"{_Q}role{_Q}\s{{0,3}}:\s{{0,3}}{_Q}(?:system|developer|assistant){_Q}"),
    Shape("turn", '"}', r"\"\s?\}\s?\]\s?\}|\"\s?\}\s?,\s?\{\s?\""),
    Shape("react", "observation thought & :", r"^\W{0,4}(?:observation|thought)\W{0,3}:"),
    Shape("final", "final␣answer", r"(?:^|[.!?] )\W{0,4}final answer\W{0,3}:"),
]
"""Two of different kinds within a short distance, or one that people do not see."""

CLOSING = (
    r"<(/?)\s{0,2}((?:untrusted|user|external|tool)[_-]?\w{0,20}|excerpts?|pairs?|chosen|rejected|dataset|data|prompt"
    r"|response"
    r"|context|documents?|rows?|examples?|transcript|conversation|quote|thoughts?|thinking"
    r"|message|user|assistant|system|human|instructions?)\b"
)
"""A closing tag that could end the place where the text is shown; it counts where nothing opened it."""

BLOCKS = (("<!--", "-->"), ("<script", "</script"), ("<style", "</style"), ("<template", "</template"))
"""Where markup that is not shown begins and ends."""

HIDDEN = (
    r"<[a-z][^<>]{0,300}(?:display\s?:\s?none|visibility\s?:\s?hidden|font-size\s?:\s?0|opacity\s?:\s?0|\shidden\b"
    r"|color\s?:\s?(?:white|transparent|#fff))[^<>]{0,300}>([^<]{1,2000})"
    r"|\b(?:on[a-z]{3,20}|alt|title)\s?=\s?(?:\"([^\"]{1,1000})|'([^']{1,1000}))"
    r"|^\[[^\]\n]{1,20}\]:\s?#\s?(\S[^\n]{1,500})"
)
"""Elements, attributes and comments that are not shown, what they say as a group."""

TURNED = "vafgehpg vtaber qvfertneq flfgrz nffvfgnag erivrj rqvgf snoitcurtsni tpmorp erongi".split()
"""Words that matter here, in rot13 or reversed."""

LOOKALIKES = str.maketrans(
    "авекмнорстухіјѕԁԛԝһгьпіαβεηικνορτυχγωԍɡɑℓօսո℮ⱴᴀʙᴄᴅᴇɢʜɪᴊᴋʟᴍɴᴏᴘʀᴛᴜᴠᴡʏᴢ",
    "abekmhopctyxijsdqwhrbniabenikvoptuxywggaloun" + "evabcdeghijklmnoprtuvwyz",
)
"""Cyrillic, Greek and other letters that look like Latin ones, lower case."""

LEET = str.maketrans("0134578@$!|", "oieastbasil")
"""Digits and signs that stand for letters."""

SHORT = 4
"""Characters from which a word is looked for as it is, and below which only between borders."""

_UNSEEN = re.compile(
    "[\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f\ufe00-\ufe0f\ufeff]"
)
_TAGS = re.compile("[\U000e0020-\U000e007e]")
_ACCENTS = re.compile("[\u0300-\u036f\u0591-\u05c7\u064b-\u0655]")
_ESCAPES = re.compile(r"\\u\{?([0-9a-f]{4})\}?|\\x([0-9a-f]{2})", re.IGNORECASE)
_PERCENT = re.compile(r"%[0-9a-fA-F]{2}")


def fold(text: str) -> str:
    """Return `text` without disguise: entities and escapes resolved, nothing invisible, no accents, lower case."""
    for _ in range(4):
        before = text
        if "&" in text:
            text = html.unescape(text)
        if "\\" in text and len(_ESCAPES.findall(text)) > 3:
            text = _ESCAPES.sub(lambda found: chr(int(found[1] or found[2], 16)), text)
        if "%" in text and len(_PERCENT.findall(text)) > 2:
            text = unquote(text, errors="replace")
        if not text.isascii():
            text = _TAGS.sub(lambda found: chr(ord(found[0]) - 0xE0000), _UNSEEN.sub("", text))
            text = _ACCENTS.sub("", unicodedata.normalize("NFKD", text.lower()))
            text = unicodedata.normalize("NFC", text).replace("ı", "i").replace("đ", "d").replace("’", "'")
        text = text.lower()
        if text == before:
            break
    return text


def passes(gates: Gates, text: str) -> bool:
    """Whether a text holds a substring of each set of one way through."""
    return any(all(any(map(text.__contains__, group)) for group in way) for way in gates)


@cache
def shapes(*, strong: bool) -> list[tuple[str, Gates, re.Pattern[str], int]]:
    """Return reason, gates, pattern and reach of the cue of each shape."""
    table = STRONG if strong else WEAK
    return [(shape.reason, _gates(shape.gates), re.compile(shape.pattern, re.MULTILINE), shape.cue) for shape in table]


def speaks(text: str, name: str) -> bool:
    """Whether a text may hold a word of the list `name` of any language; much quicker than to try each."""
    long, short = _any_tongue(name, text.isascii())
    return any(map(text.__contains__, long)) or (short is not None and short.search(text) is not None)


@cache
def _any_tongue(name: str, only_ascii: bool) -> tuple[tuple[str, ...], re.Pattern[str] | None]:
    words = " ".join(getattr(tongue, name) for tongue in TONGUES.values())
    short = sorted({fold(word) for word in words.split() if len(word) < SHORT})
    long, short = (
        [word for word in found if word.isascii() or not only_ascii] for found in (_stems(words, SHORT), short)
    )
    border = "(?<![a-z0-9])(?:{})(?![a-z0-9])" if only_ascii else "(?:{})"
    return tuple(long), re.compile(border.format("|".join(short))) if short else None


class Search(NamedTuple):
    """What to look for in one language."""

    gates: Gates
    """Ways through of the first and the third list."""
    exotic: bool
    """Whether no text of ASCII letters passes them."""
    verb_last: bool
    """Whether a verb may follow its object."""
    lists: tuple[re.Pattern[str], re.Pattern[str], re.Pattern[str]]
    """The patterns of three word lists."""


@cache
def tongues(one: str, two: str, three: str) -> list[Search]:
    """Return what to look for in each language that has these three word lists."""
    found = []
    for language, tongue in TONGUES.items():
        first, second, third = getattr(tongue, one), getattr(tongue, two), getattr(tongue, three)
        if first and second and third:
            groups = (_stems(first), _stems(third))
            exotic = any(not any(map(str.isascii, group)) for group in groups)
            lists = (_pattern(first), _pattern(second), _pattern(third))
            found.append(Search((groups,), exotic, language in VERB_LAST, lists))
    return found


def _gates(text: str) -> Gates:
    return tuple(
        tuple(tuple(word.replace("␣", " ") for word in group.split()) for group in way.split(" & "))
        for way in text.split(" | ")
    )


def _stems(words: str, shortest: int = 0) -> tuple[str, ...]:
    stems = {fold(word).replace("_", " ").partition("*")[0] for word in words.split() if len(word) >= shortest}
    return tuple(sorted(stem for stem in stems if not any(other != stem and other in stem for other in stems)))


def _pattern(words: str) -> re.Pattern[str]:
    """Return the pattern of a word list; scripts that write without spaces or join articles need no borders."""
    found = []
    for word in fold(words).split():
        shape = re.escape(word).replace(r"\*", r"\w{0,20}").replace("_", r"\s{1,2}")
        border = r"(?<![a-z0-9])%s(?![a-z0-9])" if word[0].isascii() else r"(?<!\w)%s(?!\w)"
        found.append(border % shape if word[0] < "\u0530" else shape)
    return re.compile("|".join(found))
