"""Words by which a request is told from its opposite, by language: numbers, units, negations and antonyms.

A word may have other meanings, in its language or another one. Then a rewrite needs more evidence than it would, which
costs little; a missing word costs more.
"""

from typing import Final

from backchannel.schemas.text import normalize

# ruff: noqa: SIM905 - word lists are read more easily as text
_ONES: Final = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen",
    "null - zwei drei vier fünf sechs sieben acht neun zehn elf zwölf dreizehn vierzehn fünfzehn sechzehn siebzehn "
    "achtzehn neunzehn",
    "zéro - deux trois quatre cinq - sept huit neuf dix onze douze treize quatorze quinze",
    "cero - dos tres cuatro cinco seis siete ocho nueve diez - doce trece catorce quince",
    "zero - - tre quattro cinque - sette otto nove dieci undici dodici tredici quattordici quindici",
    "- - दो तीन चार पाँच छह सात आठ नौ दस ग्यारह बारह तेरह चौदह पंद्रह सोलह सत्रह अठारह उन्नीस",
    "- - اثنين ثلاثة أربعة خمسة ستة سبعة ثمانية تسعة عشرة",
    "- - - ثلاث أربع خمس ست سبع ثماني تسع عشر",
)
_TENS: Final = (
    "twenty thirty forty fifty sixty seventy eighty ninety",
    "zwanzig dreissig vierzig fünfzig sechzig siebzig achtzig neunzig",
    "vingt trente quarante cinquante soixante",
    "veinte treinta cuarenta cincuenta sesenta setenta ochenta noventa",
    "venti trenta quaranta cinquanta sessanta settanta ottanta novanta",
    "बीस तीस चालीस पचास साठ सत्तर अस्सी नब्बे",
    "عشرين ثلاثين أربعين خمسين ستين سبعين ثمانين تسعين",
)
NUMBERS: Final = {"hundred": 100, "thousand": 1000} | {
    normalize(word): start + step * place
    for start, step, languages in ((0, 1, _ONES), (20, 10, _TENS))
    for words in languages
    for place, word in enumerate(words.split())
    if word != "-"  # it is also an article, or another common word
}
NUMERALS: Final = dict(zip("〇零一二三四五六七八九十百千万", (0, *range(10), 10, 100, 1000, 10_000), strict=True))
"""Of Chinese and Japanese."""
NEGATIONS: Final = frozenset(
    map(
        normalize,
        (
            "no not never none nothing without except dont neither nor cannot nicht kein keine keinen ohne nie sans "
            "pas jamais sin nunca senza mai sem não zonder niet geen не без nie bez नहीं मत बिना لا بدون ليس"
        ).split(),
    )
)
DIRECTIONS: Final = frozenset("to from before after than minus into".split())
UNITS: Final = {
    unit: (dimension, names.split()[0])
    for dimension, all_names in {
        "time": ("second seconds sec secs", "minute minutes min mins", "hour hours hr hrs", "day days", "week weeks"),
        "date": ("month months", "year years"),
        "temperature": ("celsius centigrade", "fahrenheit"),
        "length": ("meter meters metre metres", "kilometer kilometers kilometre km", "mile miles", "foot feet", "inch"),
        "weight": ("gram grams", "kilogram kilograms kilo kilos kg", "pound pounds lb lbs", "ounce ounces oz"),
        "money": ("dollar dollars", "euro euros", "yen", "franc francs", "cent cents"),
        "share": ("percent", "degree degrees"),
    }.items()
    for names in all_names
    for unit in names.split()
}
ANTONYMS: Final = frozenset(
    frozenset(map(normalize, pair.split("/")))
    for pair in (
        "on/off up/down left/right in/out inside/outside open/close opened/closed opening/closing start/stop "
        "play/stop play/pause start/end begin/end add/remove add/delete increase/decrease raise/lower "
        "louder/quieter louder/softer warmer/cooler warmer/colder hotter/colder hot/cold warm/cool "
        "brighter/dimmer brighter/darker bright/dim light/dark more/less most/least higher/lower high/low "
        "highest/lowest faster/slower fast/slow cheap/expensive cheapest/expensive north/south east/west "
        "northern/southern eastern/western first/last next/previous forward/back forward/backward "
        "forwards/backwards before/after today/tomorrow today/yesterday tomorrow/yesterday morning/evening "
        "morning/night morning/afternoon day/night am/pm early/late earlier/later earliest/latest new/old "
        "newest/oldest arrive/leave arrive/depart arrival/departure arrivals/departures buy/sell send/receive "
        "accept/decline accept/reject allow/block enter/exit enter/leave push/pull win/lose best/worst good/bad "
        "big/small bigger/smaller large/small long/short longer/shorter show/hide save/delete keep/delete "
        "true/false yes/no with/without always/never to/from over/under above/below private/public male/female "
        "husband/wife mother/father mum/dad mom/dad son/daughter brother/sister "
        # German
        "an/aus ein/aus auf/zu hoch/runter rauf/runter hoch/herunter lauter/leiser laut/leise heller/dunkler "
        "hell/dunkel wärmer/kälter warm/kalt höher/tiefer höher/niedriger mehr/weniger schneller/langsamer "
        "schnell/langsam links/rechts nächste/vorherige nächstes/vorheriges nächster/vorheriger nächsten/vorherigen "
        "vor/zurück weiter/zurück heute/morgen heute/gestern gestern/morgen morgens/abends start/stopp "
        "starte/stoppe öffne/schließe öffnen/schließen erste/letzte erster/letzter mit/ohne innen/außen "
        "drinnen/draußen oben/unten ja/nein neu/alt teuer/billig groß/klein früher/später sperre/entsperre "
        # French
        "allume/éteins allumer/éteindre allumez/éteignez monte/baisse monter/baisser augmente/diminue "
        "augmenter/diminuer augmente/baisse ouvre/ferme ouvrir/fermer ouvrez/fermez plus/moins fort/bas haut/bas "
        "gauche/droite premier/dernier première/dernière suivant/précédent suivante/précédente demain/hier "
        "matin/soir avec/sans chaud/froid oui/non démarre/arrête ajoute/supprime "
        # Spanish
        "enciende/apaga encender/apagar prende/apaga sube/baja subir/bajar aumenta/disminuye aumenta/baja "
        "abre/cierra abrir/cerrar más/menos izquierda/derecha primero/último primera/última siguiente/anterior "
        "hoy/mañana hoy/ayer mañana/ayer con/sin caliente/frío sí/no añade/quita "
        # Italian
        "accendi/spegni accendere/spegnere alza/abbassa apri/chiudi aprire/chiudere più/meno destra/sinistra "
        "primo/ultimo prima/ultima successivo/precedente successiva/precedente oggi/domani oggi/ieri con/senza "
        "caldo/freddo aumenta/diminuisci sì/no "
        # Portuguese
        "acende/apaga acender/apagar aumenta/diminui aumentar/diminuir sobe/desce abre/fecha abrir/fechar "
        "mais/menos esquerda/direita próximo/anterior próxima/anterior hoje/amanhã hoje/ontem com/sem quente/frio "
        # Dutch
        "aan/uit open/dicht open/sluit omhoog/omlaag harder/zachter hoger/lager meer/minder links/rechts "
        "volgende/vorige vandaag/morgen vandaag/gisteren met/zonder warmer/kouder ja/nee "
        # Scandinavian languages
        "tänd/släck på/av höj/sänk upp/ner öppna/stäng mer/mindre nästa/föregående tænd/sluk op/ned åbn/luk "
        "tenn/slukk åpne/lukk opp/ned neste/forrige næste/forrige "
        # Polish and Russian
        "włącz/wyłącz zapal/zgaś głośniej/ciszej otwórz/zamknij więcej/mniej następny/poprzedni następna/poprzednia "
        "dzisiaj/jutro dziś/jutro z/bez включи/выключи включить/выключить громче/тише открой/закрой открыть/закрыть "
        "больше/меньше выше/ниже вверх/вниз влево/вправо следующий/предыдущий следующая/предыдущая сегодня/завтра "
        "сегодня/вчера теплее/холоднее добавь/удали с/без да/нет "
        # Turkish
        "aç/kapat açık/kapalı artır/azalt yükselt/alçalt sonraki/önceki ileri/geri bugün/yarın bugün/dün sağ/sol "
        "evet/hayır "
        # Arabic
        "شغل/اطفئ شغل/أطفئ شغل/طفي شغل/وقف افتح/اقفل افتح/أغلق افتح/اغلق ارفع/اخفض ارفع/خفض علي/وطي زود/قلل "
        "التالي/السابق التالية/السابقة اليوم/غدا اليوم/بكرة اليوم/أمس يمين/يسار مع/بدون نعم/لا "
        # Hindi
        "चालू/बंद खोलो/बंद खोलें/बंद जलाओ/बुझाओ बढ़ाओ/घटाओ बढ़ाओ/कम बढ़ाएं/घटाएं ज़्यादा/कम तेज़/धीमा तेज़/धीरे "
        "ऊपर/नीचे अगला/पिछला अगली/पिछली आज/कल दाएँ/बाएँ ऑन/ऑफ हाँ/नहीं "
    ).split()
)
UNSPACED: Final = tuple(
    (one, other)
    for one, other in (
        pair.split("/")
        for pair in (
            # Japanese
            "つけ/消し つけ/けし 付け/消し オン/オフ 上げ/下げ あげ/さげ 開け/閉め あけ/しめ 開い/閉じ 入れ/切っ "
            "大きく/小さく 明るく/暗く 暖かく/涼しく 強く/弱く 高く/低く 早く/遅く 次/前 今日/明日 今日/昨日 右/左 "
            "再生/停止 再生/一時停止 始め/止め 朝/夜 午前/午後 最初/最後 "
            # Chinese
            "开/关 開/關 打开/关闭 大/小 高/低 上/下 左/右 今天/明天 今天/昨天 增加/减少 播放/暂停 下一/上一 上午/下午 "
            # Korean
            "켜/꺼 켜/끄 올려/내려 높여/낮춰 열어/닫아 다음/이전 오늘/내일 오늘/어제 왼쪽/오른쪽 크게/작게"
        ).split()
    )
)
"""Antonyms of languages that are written without spaces, or inflect: parts of words."""
PREFIXES: Final = (
    *(("", prefix) for prefix in ("un", "dis", "de", "des", "dé", "dés")),
    *(("ein", "aus"), ("an", "aus"), ("auf", "zu"), ("auf", "ab"), ("hoch", "runter"), ("aan", "uit")),
)
"""Prefixes that make opposites: none, or the first, in place of the second."""
