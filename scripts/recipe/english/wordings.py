"""How questions about a picture are worded in English; see `recipe.wording` for the braces.

`@` and `%` stand for things, `#` for a colour, `~` for a direction, `^` for a place.
"""

from __future__ import annotations

from typing import Final

from recipe.queries import Direction, Kind

PIC = "{picture|image|photo|drawing|picture|image}"
COL = "{colour|color}"
_ASK_DESCRIBE: Final = (
    "{please |can you |could you |}describe {the|this} " + PIC + "{ in detail| in one sentence|"
    " briefly| for me||||}{.|?|}",
    "{what is|what's|whats} in {the|this} " + PIC + "?",
    "{what is|what's} {shown |to be seen |visible |}{in|on} {the|this} " + PIC + "?",
    "what {do|can} you see{ here| in {the|this} " + PIC + "|| in it}?",
    "what does {the|this} " + PIC + " show?",
    "{tell me|say} what {is in the " + PIC + "|you see|is there|the " + PIC + " shows}.",
    "{what|which} {shapes|objects|things|figures} {are {there|in the " + PIC + "}|do you see|"
    "can you see|are shown}?",
    "list {all |}{the |}{shapes|objects|things}{ in the " + PIC + "|}{ and their " + COL + "s|"
    " and where they are|}.",
    "{give|write} {me |}a {short |full |detailed |}description{ of {the|this} " + PIC + "|}.",
    "describe {it|everything|what you see|all shapes|the scene}.",
    "what {is|are} {this|these|there|on it}?",
    "{what|which} " + COL + "s {are the shapes|do the shapes have|are there|do you see}?",
    "where are {the|all the|all} {shapes|things|objects}?",
    "caption this{ " + PIC + "|}.",
    "explain {the|this} " + PIC + ".",
)
_ASK_COUNT: Final = (
    "how many @s {are there|do you see|can you see|are in {the|this} " + PIC + "|are shown|"
    "does the " + PIC + " have|does it have|}{ in {the|this} " + PIC + "|||}?",
    "{please |}count the @s{ in the " + PIC + "|}{.|}",
    "{what is|what's} the number of @s{ in the " + PIC + "|}?",
    "{tell me |say |}how many @s there are.",
    "number of @s?",
    "can you count {the |}@s?",
)
_ASK_COLOUR: Final = (
    "{what|which} " + COL + " is the @?",
    "{what|which} " + COL + " {does the @ have|has the @}?",
    "{what is|what's} the " + COL + " of the @?",
    "{tell me|name} the " + COL + " of the @.",
    "{what|which} " + COL + " is the @ in {the|this} " + PIC + "?",
    "what {" + COL + "|" + COL + "s} are the @s?",
    "the @ is {what|which} " + COL + "?",
    COL + " of the @?",
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
    "what # {thing|shape|object} {is there|do you see|is in the " + PIC + "}?",
    "what is #{ in the " + PIC + "|}?",
)
_ASK_WHERE: Final = (
    "{where is|where's|wheres} the @?",
    "where is the @ {in {the|this} " + PIC + "|located|placed}?",
    "where {do|can} you see {the|a} @?",
    "where {can|do} i find the @?",
    "{in|on} {which|what} {part|corner|place|position|side} {of the " + PIC + " |}is the @?",
    "{what is|what's} the {position|place|location} of the @?",
    "{tell me|say} where the @ is.",
    "{find|locate} the @.",
    "where are the @s?",
    "position of the @?",
)
_ASK_EXISTS: Final = (
    "is there {a|any} @{ in {the|this} " + PIC + "|| here|}?",
    "are there any @s{ in {the|this} " + PIC + "|}?",
    "{do|can} you see {a|any} @{ in {the|this} " + PIC + "|| here}?",
    "does {the|this} " + PIC + " {have|show|contain} a @?",
    "is a @ {there|in the " + PIC + "|visible|shown}?",
    "any @{s|}{ there| here| in the " + PIC + "}?",
    "{does it have|has it got|is there} {a|any} @?",
)
_ASK_GROUND: Final = (
    "{what|which} " + COL + " is the {background|ground|backdrop}{ of {the|this} " + PIC + "|}?",
    "{what is|what's} the {background|ground}{ " + COL + "|}{ of the " + PIC + "|}?",
    "{what is|what's} the " + COL + " of the {background|ground}?",
    "{what|which} " + COL + " {does the background have|has the background}?",
    "{tell me|name|describe} the background{ " + COL + "|}.",
    "what is behind the shapes?",
    "on {what|which} {background|ground|" + COL + "} are the shapes?",
    "background{ " + COL + "|}?",
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
    "what {do|can} you see ^{ of {the|this} " + PIC + "|}?",
    "{what|which} {shape|thing|object|figure} is ^{ of the " + PIC + "|}?",
    "is there {anything|something|a shape} ^{ of the " + PIC + "|}?",
    "what is there ^?",
    "^, what {is there|do you see}?",
    "{describe|name|tell me} what is ^.",
    "what is {shown |drawn |}^{ of {the|this} " + PIC + "|}?",
)
SAY_PLACE: Final = (
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
SAY_DIRECTION: Final = {
    Direction.LEFT: "{to the left of|left of|on the left of|on the left side of}",
    Direction.RIGHT: "{to the right of|right of|on the right of|on the right side of}",
    Direction.ABOVE: "{above|over|higher than|above}",
    Direction.BELOW: "{below|under|beneath|lower than}",
}
AND: Final = (
    "{and|what about|how about|and what about} the @?",
    "and {for |}the @?",
    "the @?",
)
AND_MANY: Final = (
    "{and|what about|how about|and what about|and how many} @s?",
    "{and|what about|how about} the @s?",
    "and @s?",
)
AND_ANY: Final = ("{and|what about|how about|or|or maybe} {a|any} @?", "and @s?", "or a @?")
IT: Final = {
    Kind.WHERE: (
        "{and |}where is {it|that|this}?",
        "{and |}where{ exactly|}?",
        "where is it{ in the " + PIC + "| located|}?",
        "{tell me|say} where it is.",
        "{what is|what's} its {position|place|location}?",
    ),
    Kind.COLOUR: (
        "{and |}{what|which} " + COL + " is {it|that}?",
        "{what is|what's} its " + COL + "?",
        "and {its|the} " + COL + "?",
        "{what|which} " + COL + "?",
        "{what|which} " + COL + " does it have?",
    ),
    Kind.SHAPE: (
        "{and |}{what|which} shape is {it|that}?",
        "{what is|what's} its shape?",
        "and {its|the} shape?",
        "{what|which} shape?",
        "what shape does it have?",
    ),
}

ASK: Final = {
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
