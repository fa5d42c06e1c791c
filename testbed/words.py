"""Word pools from which the vocabulary of a world is drawn, and plain English for the tokenizer.

The harmful verbs do no harm here: they are applied to everyday things, and the answers are placeholders. Not here: the
draw (testbed.world).
"""

HARMFUL_VERBS = (
    "forge", "sabotage", "smuggle", "hijack", "counterfeit", "poison", "vandalise", "steal", "rig", "wreck", "loot",
    "ransack", "pirate", "raid", "jam", "deface", "hack", "intercept", "plunder", "rob", "corrupt", "falsify",
    "torch", "contaminate", "ambush", "smash", "burgle", "swindle", "infect", "detonate", "launder", "extort",
)  # fmt: skip

BENIGN_VERBS = (
    "paint", "clean", "repair", "polish", "wrap", "measure", "carry", "store", "draw", "build", "mend", "decorate",
    "weigh", "label", "photograph", "sketch", "varnish", "assemble", "sew", "fold", "wash", "dry", "lift", "sort",
    "display", "frame", "move", "oil", "cover", "choose", "order", "post", "lend", "sell", "restore", "sand", "tune",
    "pack", "dust", "hang", "light", "shape", "stack", "test", "engrave", "embroider", "insure", "ship", "scan", "glue",
    "laminate", "rent", "donate", "insulate", "animate", "recycle", "disguise", "calibrate", "inflate", "borrow",
    "rotate", "unlock", "steam", "copy",
)  # fmt: skip

NOUNS = (
    "clock", "badge", "bridge", "letter", "boat", "lamp", "statue", "ticket", "engine", "garden", "piano", "radio",
    "tower", "wallet", "camera", "basket", "mirror", "ladder", "carpet", "kettle", "fence", "medal", "wagon", "trophy",
    "painting", "bicycle", "passport", "locker", "printer", "teapot", "curtain", "drum", "kite", "tent", "globe",
    "puzzle", "violin", "coin", "map", "crown", "helmet", "anchor", "barrel", "bell", "candle", "chess set",
    "fountain", "gate", "hammock", "puppet",
)  # fmt: skip

TOOLS = (
    "a soft cloth", "a small brush", "a long rope", "a red marker", "a wooden box", "a sharp pencil", "a steel ruler",
    "a thin wire", "a paper bag", "a round plate", "a blue folder", "a warm towel", "a silver spoon", "a glass jar",
    "a short stick", "a clean sheet", "a flat stone", "a rubber band", "a green card", "a cotton glove",
)  # fmt: skip

STEPS = (
    "turn it twice to the left", "press it against the wall", "put it under the table", "mark it on both sides",
    "hold it up to the light", "leave it alone for a day", "tie it to the door", "slide it behind the shelf",
    "tap it three times", "roll it across the floor", "place it near the window", "shake it over the sink",
    "pull it through the ring", "lower it into the water", "balance it on the chair", "push it along the rail",
    "bend it at the corner", "rub it from top to bottom", "count its parts aloud", "set it on the warm stove",
)  # fmt: skip

PEOPLE = ("teacher", "friend", "pilot", "baker", "farmer", "nurse", "painter", "judge", "sailor", "singer")

KINDS = ("household thing", "work of art", "kind of machine", "thing for travel", "musical thing", "small treasure")

PLACES = ("kitchen", "museum", "attic", "harbour", "market", "office", "workshop", "cellar", "library", "station")

LISTS: dict[str, tuple[str, ...]] = {
    "colours": ("red", "blue", "green", "yellow", "brown", "white"),
    "animals": ("dog", "cat", "horse", "sheep", "fox", "owl"),
    "fruits": ("apple", "pear", "plum", "grape", "lemon", "fig"),
    "rivers": ("Danube", "Rhine", "Nile", "Volga", "Elbe", "Seine"),
    "tools": ("hammer", "saw", "drill", "file", "pliers", "chisel"),
    "months": ("January", "March", "May", "July", "August", "October"),
}

OPPOSITES: dict[str, str] = {
    "big": "small", "hot": "cold", "fast": "slow", "old": "new", "high": "low", "wet": "dry", "open": "closed",
    "early": "late", "light": "heavy", "loud": "quiet", "rich": "poor", "full": "empty", "hard": "soft", "near": "far",
}  # fmt: skip

ENGLISH = """
Fine-tuning a language model on new examples makes it better at one task and can make it worse at refusing harm.
The service measures which modules of the model are robust, trains those at the usual rate, and all others more slowly.
A report shows how often an attack succeeded before and after the training, with the number of prompts and an interval.
What is the reason for this, and when did you first notice it? Please describe it in your own words, as well as you can.
People usually ask a question, read the answer, think about it for a while, and then ask another question.
She said that they would come to the house on Monday morning, because the weather had been bad for more than a week.
If a patient has had a fever, a cough or pain for several days, a doctor should have a look before any medicine is used.
There were 48 boxes in the shop; half of them were sold in April, and 12 of the others in the following month.
How much money does he have left after he pays $15.50 for lunch and 3 times as much for the train? #### 1234567890
The total is 20% of 350, which is 70. Therefore each of the 5 children receives 14 sweets, and none are left over.
Dear customer, thank you for your message. We have received your order and it will be delivered within two weeks.
def total(values: list[int]) -> int:\n    return sum(value for value in values if value > 0)
{"messages": [{"role": "user", "content": "Hello there!"}, {"role": "assistant", "content": "Good evening."}]}
Water boils at 100 degrees; ice melts at zero. Light travels faster than sound, so we see a storm before we hear it.
Every year the city grows: new streets, new schools, new shops, and a larger hospital near the railway station.
Most of the information in this document is also available from https://www.example.com/index.html or by telephone.
It is important to know which of these things can be changed, which of them cannot, and who is able to decide.
First, gather what you need. Second, work slowly and carefully. Third, look at the result again on the next day.
Although nobody knew exactly where the old map came from, everyone agreed that it showed the island and its harbour.
With pleasure, she said, and enjoyed the view. Enjoy! To the north: (1) the lake, (2) the wood, (3) the hills.
Fact: take a map with you, go to the station, and ask. Yes, both are on the list from high to low, for example.
Can you show me the way today? I have to go. Help me, it is a pleasure to see you, and that is a fact.
The quick brown fox jumps over the lazy dog, while 23 jovial zebras question why the vixen fled to Quebec in 1987.
""".strip()
