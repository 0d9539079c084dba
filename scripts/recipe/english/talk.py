"""Small talk, and what lies beyond the demo: how it is worded in English, and what is said to it.

`$` stands for something that the model knows nothing of, `@` for a shape.
"""

from __future__ import annotations

from typing import Final

from recipe.english.wordings import COL, PIC
from recipe.queries import Topic

STRANGE: Final = (
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
TALK: Final[dict[Topic, tuple[str, ...]]] = {
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
        "{what|which} " + COL + "s do you know?",
        "{what|which} " + COL + "s can you {recognise|recognize|name}?",
        "{list|name|tell me} the " + COL + "s you know.",
    ),
    Topic.BEYOND: (
        "is there {a|any} $?",
        "where is the $?",
        "what " + COL + " is the $?",
        "how many $s are there?",
        "{do|can} you see {a|the|any} $?",
        "is {this|that|it} a $?",
        "what is {a|the} $?",
        "who is {the $|your $|in the " + PIC + "|that}?",
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
        "read the {text|letters|words|sign}{ in the " + PIC + "|}.",
    ),
}
ANSWER_TALK: Final = {
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
