"""English: many wordings of every question, exactly one answer to each meaning."""

from __future__ import annotations

import random
from typing import Final

from recipe.queries import Direction, Form, Kind, Query, Reference, Topic, lies
from recipe.wording import expand
from recipe.world import Scene, Thing

PLACES: Final = (
    "at the top left",
    "at the top",
    "at the top right",
    "on the left",
    "in the centre",
    "on the right",
    "at the bottom left",
    "at the bottom",
    "at the bottom right",
)
NUMBERS: Final = ("no", "one", "two", "three", "four", "five", "six")
_DIRECTIONS: Final = {
    Direction.LEFT: "left of it",
    Direction.RIGHT: "right of it",
    Direction.ABOVE: "above it",
    Direction.BELOW: "below it",
}

_PIC = "{picture|image|photo|drawing|picture|image}"
_COL = "{colour|color}"
_ASK_DESCRIBE: Final = (
    "{please |can you |could you |}describe {the|this} " + _PIC + "{ in detail| in one sentence|"
    " briefly| for me||||}{.|?|}",
    "{what is|what's|whats} in {the|this} " + _PIC + "?",
    "{what is|what's} {shown |to be seen |visible |}{in|on} {the|this} " + _PIC + "?",
    "what {do|can} you see{ here| in {the|this} " + _PIC + "|| in it}?",
    "what does {the|this} " + _PIC + " show?",
    "{tell me|say} what {is in the " + _PIC + "|you see|is there|the " + _PIC + " shows}.",
    "{what|which} {shapes|objects|things|figures} {are {there|in the " + _PIC + "}|do you see|"
    "can you see|are shown}?",
    "list {all |}{the |}{shapes|objects|things}{ in the " + _PIC + "|}{ and their " + _COL + "s|"
    " and where they are|}.",
    "{give|write} {me |}a {short |full |detailed |}description{ of {the|this} " + _PIC + "|}.",
    "describe {it|everything|what you see|all shapes|the scene}.",
    "what {is|are} {this|these|there|on it}?",
    "{what|which} " + _COL + "s {are the shapes|do the shapes have|are there|do you see}?",
    "where are {the|all the|all} {shapes|things|objects}?",
    "caption this{ " + _PIC + "|}.",
    "explain {the|this} " + _PIC + ".",
)
_ASK_COUNT: Final = (
    "how many @s {are there|do you see|can you see|are in {the|this} " + _PIC + "|are shown|"
    "does the " + _PIC + " have|does it have|}{ in {the|this} " + _PIC + "|||}?",
    "{please |}count the @s{ in the " + _PIC + "|}{.|}",
    "{what is|what's} the number of @s{ in the " + _PIC + "|}?",
    "{tell me |say |}how many @s there are.",
    "number of @s?",
    "can you count {the |}@s?",
)
_ASK_COLOUR: Final = (
    "{what|which} " + _COL + " is the @?",
    "{what|which} " + _COL + " {does the @ have|has the @}?",
    "{what is|what's} the " + _COL + " of the @?",
    "{tell me|name} the " + _COL + " of the @.",
    "{what|which} " + _COL + " is the @ in {the|this} " + _PIC + "?",
    "what {" + _COL + "|" + _COL + "s} are the @s?",
    "the @ is {what|which} " + _COL + "?",
    _COL + " of the @?",
    "how is the @ {coloured|colored|painted}?",
)
_ASK_SHAPE: Final = (
    "{what|which} shape is the # {thing|one|object|shape|figure}?",
    "{what is|what's} the # {thing|one|object|shape|figure}?",
    "{what is|what's} the shape of the # {thing|one|object|figure}?",
    "what {shape|figure|thing|object} is #?",
    "{what|which} {shape|shapes|thing|things} {is|are} #?",
    "{what|which} {shape|form} {does|has} the # {thing|one|object|figure}{ have|}?",
    "{name|tell me} the shape of the # {thing|one|object}.",
    "what # {thing|shape|object} {is there|do you see|is in the " + _PIC + "}?",
    "what is #{ in the " + _PIC + "|}?",
)
_ASK_WHERE: Final = (
    "{where is|where's|wheres} the @?",
    "where is the @ {in {the|this} " + _PIC + "|located|placed}?",
    "where {do|can} you see {the|a} @?",
    "where {can|do} i find the @?",
    "{in|on} {which|what} {part|corner|place|position|side} {of the " + _PIC + " |}is the @?",
    "{what is|what's} the {position|place|location} of the @?",
    "{tell me|say} where the @ is.",
    "{find|locate} the @.",
    "where are the @s?",
    "position of the @?",
)
_ASK_EXISTS: Final = (
    "is there {a|any} @{ in {the|this} " + _PIC + "|| here|}?",
    "are there any @s{ in {the|this} " + _PIC + "|}?",
    "{do|can} you see {a|any} @{ in {the|this} " + _PIC + "|| here}?",
    "does {the|this} " + _PIC + " {have|show|contain} a @?",
    "is a @ {there|in the " + _PIC + "|visible|shown}?",
    "any @{s|}{ there| here| in the " + _PIC + "}?",
    "{does it have|has it got|is there} {a|any} @?",
)
_ASK_GROUND: Final = (
    "{what|which} " + _COL + " is the {background|ground|backdrop}{ of {the|this} " + _PIC + "|}?",
    "{what is|what's} the {background|ground}{ " + _COL + "|}{ of the " + _PIC + "|}?",
    "{what is|what's} the " + _COL + " of the {background|ground}?",
    "{what|which} " + _COL + " {does the background have|has the background}?",
    "{tell me|name|describe} the background{ " + _COL + "|}.",
    "what is behind the shapes?",
    "on {what|which} {background|ground|" + _COL + "} are the shapes?",
    "background{ " + _COL + "|}?",
)
_ASK_BESIDE: Final = (
    "{what is|what's|whats} ~ the @?",
    "{what|which} {shape|shapes|thing|things|object|objects} {is|are} ~ the @?",
    "what {do|can} you see ~ the @?",
    "what {lies|is there} ~ the @?",
    "{is there anything|anything} ~ the @?",
    "{tell me|name|say} what is ~ the @.",
    "~ the @, what {is there|do you see}?",
)
_ASK_RELATION: Final = (
    "is the @ ~ the %?",
    "{does|would you say} the @ {lie|is} ~ the %?",
    "is the @ {located |placed |}~ the %{ or not|}?",
    "the @ is ~ the %, {right|correct|isn't it|true or false|yes or no}?",
    "{tell me|say} if the @ is ~ the %.",
)
_ASK_PLACE: Final = (
    "{what is|what's|whats} ^?",
    "what {do|can} you see ^{ of {the|this} " + _PIC + "|}?",
    "{what|which} {shape|thing|object|figure} is ^{ of the " + _PIC + "|}?",
    "is there {anything|something|a shape} ^{ of the " + _PIC + "|}?",
    "what is there ^?",
    "^, what {is there|do you see}?",
    "{describe|name|tell me} what is ^.",
    "what is {shown |drawn |}^{ of {the|this} " + _PIC + "|}?",
)
_SAY_PLACE: Final = (
    "{at|in} the {top left|upper left}{ corner||}",
    "{at the top|in the top middle|at the top centre|in the top row in the middle}",
    "{at|in} the {top right|upper right}{ corner||}",
    "{on the left|on the left side|at the left|in the middle left}",
    "in the {centre|center|middle|centre}",
    "{on the right|on the right side|at the right|in the middle right}",
    "{at|in} the {bottom left|lower left}{ corner||}",
    "{at the bottom|in the bottom middle|at the bottom centre}",
    "{at|in} the {bottom right|lower right}{ corner||}",
)
_SAY_DIRECTION: Final = {
    Direction.LEFT: "{to the left of|left of|on the left of|on the left side of}",
    Direction.RIGHT: "{to the right of|right of|on the right of|on the right side of}",
    Direction.ABOVE: "{above|over|higher than|above}",
    Direction.BELOW: "{below|under|beneath|lower than}",
}
_AND: Final = (
    "{and|what about|how about|and what about} the @?",
    "and {for |}the @?",
    "the @?",
)
_AND_MANY: Final = (
    "{and|what about|how about|and what about|and how many} @s?",
    "{and|what about|how about} the @s?",
    "and @s?",
)
_AND_ANY: Final = ("{and|what about|how about|or|or maybe} {a|any} @?", "and @s?", "or a @?")
_IT: Final = {
    Kind.WHERE: (
        "{and |}where is {it|that|this}?",
        "{and |}where{ exactly|}?",
        "where is it{ in the " + _PIC + "| located|}?",
        "{tell me|say} where it is.",
        "{what is|what's} its {position|place|location}?",
    ),
    Kind.COLOUR: (
        "{and |}{what|which} " + _COL + " is {it|that}?",
        "{what is|what's} its " + _COL + "?",
        "and {its|the} " + _COL + "?",
        "{what|which} " + _COL + "?",
        "{what|which} " + _COL + " does it have?",
    ),
    Kind.SHAPE: (
        "{and |}{what|which} shape is {it|that}?",
        "{what is|what's} its shape?",
        "and {its|the} shape?",
        "{what|which} shape?",
        "what shape does it have?",
    ),
}

_STRANGE: Final = (
    "dog", "cat", "horse", "bird", "fish", "car", "bus", "train", "house", "tree", "flower",
    "mountain", "river", "sea", "moon", "sun", "cloud", "person", "man", "woman", "child",
    "baby", "face", "hand", "book", "table", "chair", "lamp", "phone", "computer", "keyboard",
    "window", "door", "road", "bridge", "boat", "plane", "rocket", "robot", "pizza", "cake",
    "apple", "banana", "bread", "coffee", "cup", "bottle", "shoe", "hat", "shirt", "dress",
    "ball", "guitar", "piano", "song", "film", "game", "city", "country", "street", "school",
    "office", "doctor", "king", "queen", "president", "lion", "tiger", "elephant", "bear",
    "mouse", "spider", "snake", "bike", "truck", "sign", "text", "number", "word", "letter",
    "line", "dot", "background", "music", "hexagon", "pentagon", "diamond", "oval", "arrow",
    "spiral", "cube", "ring",
)  # fmt: skip
_TALK: Final[dict[Topic, tuple[str, ...]]] = {
    Topic.HELLO: (
        "{hello|hi|hey|hello there|hi there|hey there|good morning|good evening}{!|.||,| :)}",
        "{good day|greetings|howdy|hiya}{!|.||,| :)}",
        "{hello|hi|hey}{,|} {model|assistant|bot|you|friend|paragone}{!|}",
        "nice to meet you{!|.|}",
    ),
    Topic.ABILITY: (
        "what can you do{ for me||}?",
        "{what are you able to do|what are your {skills|abilities|capabilities}}?",
        "{how can you help{ me|}|what can i ask{ you|}|what {should|may|could} i ask{ you|}}?",
        "{help|help me|help!}{?|}",
        "what {questions|kind of questions|sort of questions} can {i ask|you answer}?",
        "what do you {know|do|understand}?",
        "how do{es this| you} work?",
        "what is this demo{ for|}?",
        "{tell|show} me what you can do.",
    ),
    Topic.WHO: (
        "who are you?",
        "what are you?",
        "{what is|what's} your name?",
        "{are you|is this} {a {robot|person|human|model|bot}|an ai|chatgpt|llava|human}?",
        "{tell me about yourself|introduce yourself}.",
        "{which|what} model {are you|is this}?",
        "who {made|built|trained} you?",
    ),
    Topic.HOW: (
        "how are you{ today| doing||}?",
        "{how is it going|how's it going|how do you do|how are things|what's up}?",
        "are you {well|ok|okay|fine}?",
    ),
    Topic.THANKS: (
        "{thanks|thank you|thank you very much|thanks a lot|many thanks|thx|cheers}{!|.|}",
        "{great|good|nice|well done|good job|perfect|cool|awesome}{!|.|}{ thank you!| thanks.||}",
        "{that is|that's} {right|correct|good|great|nice}{!|.|}",
    ),
    Topic.BYE: (
        "{bye|goodbye|good bye|bye bye|see you|see you later|good night|farewell}{!|.|}",
        "{i have to go|that is all|i am done|that's all for today}{.|}",
    ),
    Topic.SHAPES: (
        "{what|which} shapes do you know?",
        "{what|which} {shapes|figures} can you {recognise|recognize|name}?",
        "{list|name|tell me} the shapes you know.",
    ),
    Topic.COLOURS: (
        "{what|which} " + _COL + "s do you know?",
        "{what|which} " + _COL + "s can you {recognise|recognize|name}?",
        "{list|name|tell me} the " + _COL + "s you know.",
    ),
    Topic.BEYOND: (
        "is there {a|any} $?",
        "where is the $?",
        "what " + _COL + " is the $?",
        "how many $s are there?",
        "{do|can} you see {a|the|any} $?",
        "is {this|that|it} a $?",
        "what is {a|the} $?",
        "who is {the $|your $|in the " + _PIC + "|that}?",
        "{tell me|do you know} {a joke|a story|something about a $|about the $|a secret|the time}.",
        "write {a poem|a song|a story|an email|some code|a letter|an essay}{ about {a|the} $|}.",
        "what is {the weather|the time|the date|love|life}{ today| like|}?",
        "what is {the capital of france|two plus two}?",
        "{what is|what's} unusual about this image?",
        "why is {the $ here|it so|the sky blue|that}?",
        "{when|why|how} {was|did} the $ {made|come here|start|work}?",
        "{what|how} {big|large|old|heavy|far|long} is the {$|@}?",
        "{translate|sing|draw|play|buy|sell|open} {this|the $|a $|something}.",
        "do you {like|love|hate|have|want} {$s|a $|me|music|it}?",
        "{i like|i have|i want|give me|my favourite is} {a $|the $|$s}.",
        "can you {write code|drive|sing|draw a $|cook|speak french|play chess}?",
        "what {is the meaning of|happened to|do you think of} {life|the $|it}?",
        "what are the things i should be cautious about when i visit here?",
        "{what|which} {year|day|country|city|brand|language} is {it|this}?",
        "{asdf|lorem ipsum|blah blah|qwerty|test|testing|hmm|ok so|xyz|1 2 3|foo bar}{?|}",
        "{is|does} {the $|it} {happy|sad|dangerous|alive|move|fall|sleep}?",
        "read the {text|letters|words|sign}{ in the " + _PIC + "|}.",
    ),
}
_ANSWER_TALK: Final = {
    Topic.HELLO: "Hello! Show me a picture of coloured shapes and ask me about it.",
    Topic.ABILITY: "I can describe a picture of coloured shapes, count them, name their colours "
    "and say where they are.",
    Topic.WHO: "I am the Paragone demo model: small, trained from scratch, and fond of coloured "
    "shapes.",
    Topic.HOW: "I am fine, thank you. Shall we look at a picture?",
    Topic.THANKS: "You are welcome!",
    Topic.BYE: "Goodbye!",
    Topic.SHAPES: "I know circles, squares, triangles, stars, hearts and crosses.",
    Topic.COLOURS: "I know red, orange, yellow, green, blue, purple, pink and brown.",
    Topic.NO_PICTURE: "Please show me a picture first.",
    Topic.BEYOND: "I do not know that. I only know about coloured shapes in pictures.",
}


def ask(query: Query, rng: random.Random) -> str:
    """One of the wordings of the question."""
    kind, form = query.kind, query.form
    if kind is Kind.TALK:
        return _ask_talk(query.topic, rng)
    if form is Form.IT:
        return expand(rng.choice(_IT[kind]), rng)
    if form is Form.AND:
        return _ask_and(query, rng)
    template = rng.choice(_ASK[kind])
    template = template.replace("~", _SAY_DIRECTION[query.direction])
    template = template.replace("^", _SAY_PLACE[query.cell])
    if kind is Kind.SHAPE:
        template = template.replace("#", query.target.colour or "")
    return _fill(expand(template, rng), query, rng)


_ASK: Final = {
    Kind.DESCRIBE: _ASK_DESCRIBE,
    Kind.COUNT: _ASK_COUNT,
    Kind.COLOUR: _ASK_COLOUR,
    Kind.SHAPE: _ASK_SHAPE,
    Kind.WHERE: _ASK_WHERE,
    Kind.EXISTS: _ASK_EXISTS,
    Kind.GROUND: _ASK_GROUND,
    Kind.BESIDE: _ASK_BESIDE,
    Kind.RELATION: _ASK_RELATION,
    Kind.PLACE: _ASK_PLACE,
}


def _ask_talk(topic: Topic, rng: random.Random) -> str:
    if topic is Topic.NO_PICTURE:
        kind = rng.choice([kind for kind in _ASK if kind is not Kind.RELATION])
        target = Reference(rng.choice(("red", "blue", "green", "pink")), rng.choice(_SHAPE_WORDS))
        if kind is Kind.COLOUR or (kind is not Kind.SHAPE and rng.random() < 0.5):
            target = Reference(shape=target.shape)
        direction, cell = rng.choice(list(Direction)), rng.randrange(len(PLACES))
        return ask(Query(kind, target, direction=direction, cell=cell), rng)
    text = expand(rng.choice(_TALK[topic]), rng)
    return text.replace("$", rng.choice(_STRANGE)).replace("@", rng.choice(_SHAPE_WORDS))


_SHAPE_WORDS: Final = ("circle", "square", "triangle", "star", "heart", "cross")


def _ask_and(query: Query, rng: random.Random) -> str:
    if query.kind is Kind.COUNT:
        templates = _AND_MANY
    elif query.kind is Kind.EXISTS:
        templates = _AND_ANY
    else:
        templates = _AND
    return _fill(expand(rng.choice(templates), rng), query, rng)


def _fill(text: str, query: Query, rng: random.Random) -> str:
    loose = rng.choice(("thing", "one", "object", "shape", "shape"))
    for mark, reference in (("@", query.target), ("%", query.other)):
        noun = reference.shape or ("shape" if reference.colour is None else loose)
        words = noun if reference.colour is None else f"{reference.colour} {noun}"
        plural = words + ("es" if words.endswith("s") else "s")
        text = text.replace(f"{mark}s", plural)
        text = text.replace(f"a {mark}", f"{article(words)} {words}").replace(mark, words)
    return text


def article(words: str) -> str:
    return "an" if words[:1] in "aeiou" else "a"


def note(target: Reference, scene: Scene, rng: random.Random) -> tuple[str, str]:
    """Words for things, and how many there are; of a single one also what and where it is."""
    found = target.matches(scene)
    words = called(target, 1 if rng.random() < 0.6 else 2)
    if len(found) != 1:
        return f" {words}", f" {NUMBERS[len(found)]},"
    colour = "" if target.colour else f" {found[0].colour}"
    shape = "" if target.shape else f" {found[0].shape}"
    return f" {words}", f" one{colour}{shape} {PLACES[found[0].cell]},"


def answer(query: Query, scene: Scene) -> str:
    """The one right answer.

    It names the thing asked about before it says what is so: a small model then looks first and
    decides after.
    """
    if query.kind is Kind.TALK:
        return _ANSWER_TALK[query.topic]
    if query.kind is Kind.DESCRIBE:
        return _describe(scene)
    if query.kind is Kind.GROUND:
        return f"The background is {scene.ground}."
    if query.kind is Kind.PLACE:
        return _at(query.cell, scene)
    found = query.target.matches(scene)
    if query.kind is Kind.COUNT:
        return f"{_there_are(query.target, len(found))}."
    if query.kind is Kind.EXISTS:
        return f"{_capital(_a(called(query.target)))}? {_yes_or_no(len(found))}"
    if query.kind is Kind.RELATION:
        return _relation(query, scene, found)
    if query.kind is Kind.BESIDE:
        return _beside(query, scene, found)
    if query.form is Form.IT:
        return f"It is {_attribute(query.kind, found[0])}."
    subject = f"The {called(query.target)} is"
    if not found:
        return f"{subject} {_NOWHERE}."
    each = [_attribute(query.kind, thing) for thing in found]
    return (
        f"{subject} {each[0]}." if len(found) == 1 else f"{subject} {_one_of(found)}: {join(each)}."
    )


_NOWHERE: Final = "nowhere in the picture"


def join(words: list[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def called(reference: Reference, count: int = 1) -> str:
    """Words for things of a kind: `red circle`, `red circles`, `shapes`."""
    noun = reference.shape or "shape"
    if count != 1:
        noun += "es" if noun.endswith("s") else "s"
    return noun if reference.colour is None else f"{reference.colour} {noun}"


def _a(words: str) -> str:
    return f"{article(words)} {words}"


def _capital(words: str) -> str:
    return f"{words[:1].upper()}{words[1:]}"


def _one_of(found: tuple[Thing, ...]) -> str:
    return f"one of {NUMBERS[len(found)]}"


def _there_are(reference: Reference, count: int) -> str:
    verb = "is" if count == 1 else "are"
    return f"There {verb} {NUMBERS[count]} {called(reference, count)}"


def _attribute(kind: Kind, thing: Thing) -> str:
    if kind is Kind.COLOUR:
        return thing.colour
    return _a(thing.shape) if kind is Kind.SHAPE else PLACES[thing.cell]


def _yes_or_no(count: int) -> str:
    if count == 0:
        return "No, there is none."
    return "Yes, there is one." if count == 1 else f"Yes, there are {NUMBERS[count]}."


def _describe(scene: Scene) -> str:
    if not scene.things:
        return f"There are no shapes, only a {scene.ground} background."
    count = len(scene.things)
    each = [f"{_a(f'{thing.colour} {thing.shape}')} {PLACES[thing.cell]}" for thing in scene.things]
    return f"{_there_are(Reference(), count)} on a {scene.ground} background: {join(each)}."


def _at(cell: int, scene: Scene) -> str:
    there = [_a(f"{thing.colour} {thing.shape}") for thing in scene.things if thing.cell == cell]
    return f"{_capital(PLACES[cell])} is {there[0] if there else 'nothing'}."


def _beside(query: Query, scene: Scene, found: tuple[Thing, ...]) -> str:
    subject = f"The {called(query.target)} is"
    if not found:
        return f"{subject} {_NOWHERE}."
    if len(found) > 1:
        return f"{subject} {_one_of(found)}, so I cannot say."
    there = [
        _a(f"{thing.colour} {thing.shape}")
        for thing in scene.things
        if lies(thing, query.direction, found[0])
    ]
    verb = "are" if len(there) > 1 else "is"
    where = f"{subject} {PLACES[found[0].cell]}, {_DIRECTIONS[query.direction]}"
    return f"{where} {verb} {join(there) if there else 'nothing'}."


def _relation(query: Query, scene: Scene, found: tuple[Thing, ...]) -> str:
    others = query.other.matches(scene)
    subject = f"The {called(query.target)} is"
    if not found:
        return f"{subject} {_NOWHERE}, so no."
    if len(found) > 1:
        return f"{subject} {_one_of(found)}, so I cannot say."
    both = f"{subject} {PLACES[found[0].cell]} and the {called(query.other)}"
    if not others:
        return f"{both} {_NOWHERE}, so no."
    if len(others) > 1:
        return f"{both} {_one_of(others)}, so I cannot say."
    is_so = lies(found[0], query.direction, others[0])
    return f"{both} {PLACES[others[0].cell]}, so {'yes' if is_so else 'no'}."
