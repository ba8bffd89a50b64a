"""Shapes of text that speaks to its auditor, in English and in markup, as data.

`STRONG` are shapes that ordinary conversation hardly ever has: one is enough. `WEAK` are shapes that it has now and
then: two of different kinds must stand together, or one in a place that people do not see. They are looked for after
`addressed_words.fold`. Every repetition has an upper bound, so the time to search is linear in the length of the text.
Nothing here decides anything.
"""

from __future__ import annotations

from typing import NamedTuple


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
