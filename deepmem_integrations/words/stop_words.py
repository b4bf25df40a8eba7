"""Stop words: words that say next to nothing about what a text is about, by ISO 639-1 code.

One-letter words are what is left of elisions: ``l'eau``, ``what's``.
"""

STOP_WORDS = {
    "ar": "في من على إلى عن أن إن ما هل هو هي هذا هذه ذلك التي الذي كيف متى أين لماذا مع أو ثم لا كان كانت",
    "da": (
        "og i at er en et den det der de til på for af med som ikke hvad hvordan hvor hvorfor hvilken hvilke kan jeg "
        "man om fra har var"
    ),
    "de": (
        "der die das den dem des ein eine einer eines einem einen und oder ist sind war wird werden in im an am auf aus "
        "bei mit nach von vom zu zum zur für um als wie was wer wo wann warum welche welcher welches ich sich es nicht "
        "kann man dass auch"
    ),
    "en": (
        "a an and are as at be been but by can could d did do does for from had has have how i if in into is isn it its "
        "ll m me my not of on or re s so t than that the their then there these they this those to ve was we were what "
        "when where which who why will with would you your"
    ),
    "es": (
        "el la los las un una unos unas de del al a en y o que qué es son fue por para con como cómo cuál cuáles cuándo "
        "dónde se su sus lo no más mi me le les este esta"
    ),
    "fi": "ja on ei se että en mutta oli ovat kun niin kuin tai jos mitä mikä miten missä milloin miksi kuka voi voiko",
    "fr": (
        "l d c j n s t m qu le la les un une des de du au aux et ou est sont en dans par pour sur avec que qui quoi "
        "quel quelle quels quelles comment où quand pourquoi ce cette ces il elle on je se sa son ses ne pas plus"
    ),
    "hi": "का के की में है हैं और से को पर यह वह क्या कैसे कब कहाँ क्यों कौन ने एक था थी थे भी",
    "it": (
        "l d un dell nell all dall sull il lo la i gli le uno una di del della dei delle a al alla da dal in nel nella "
        "con su per tra e o è sono che chi come quando dove perché quale quali cosa si non mi"
    ),
    "nl": (
        "de het een en of van in op te aan is zijn was wordt worden met voor door bij uit naar om als wat wie waar "
        "wanneer waarom hoe welke ik je dat die dit deze niet er kan"
    ),
    "no": (
        "og i å er en et den det de til på for av med som ikke hva hvordan hvor hvorfor hvilken hvilke kan jeg man om fra har var"
    ),
    "pl": (
        "i w we na z ze do o od po dla przez jest są się nie to ten ta te jak co kto gdzie kiedy dlaczego czy który "
        "która które jaki jaka jakie a oraz lub"
    ),
    "pt": (
        "o a os as um uma de do da dos das em no na nos nas e ou é são foi que quem qual quais como quando onde por "
        "porque para com se seu sua não mais ao à"
    ),
    "ru": (
        "и в во не на что как это для с со по от из к у о об за при или же ли то а но где когда почему какой какая "
        "какие кто чем быть был была было"
    ),
    "sv": (
        "och i att är en ett den det de till på för av med som inte vad hur var varför vilken vilka kan jag man om från har när"
    ),
    "tr": (
        "ve bir bu şu o için ile de da mi mı mu mü ne nasıl neden niçin nerede hangi kim gibi kadar daha çok en olan olarak var"
    ),
    "uk": "і й та в у не на що як це для з із по від до о об за при або же чи то а але де коли чому який яка які хто",
}
