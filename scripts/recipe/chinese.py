"""Chinese: several wordings of every question, exactly one answer to each meaning."""

from __future__ import annotations

import random
from typing import Final

from recipe.queries import Direction, Form, Kind, Query, Reference, Topic, lies
from recipe.wording import expand
from recipe.world import Scene, Thing

COLOURS: Final = {
    "red": "红色",
    "orange": "橙色",
    "yellow": "黄色",
    "green": "绿色",
    "blue": "蓝色",
    "purple": "紫色",
    "pink": "粉色",
    "brown": "棕色",
}
SHAPES: Final = {
    "circle": "圆形",
    "square": "正方形",
    "triangle": "三角形",
    "star": "星形",
    "heart": "心形",
    "cross": "十字形",
}
GROUNDS: Final = {
    "white": "白色",
    "grey": "灰色",
    "black": "黑色",
    "beige": "米色",
    "turquoise": "青色",
    "lavender": "淡紫色",
}
PLACES: Final = (
    "左上角", "上方", "右上角", "左边", "中间", "右边", "左下角", "下方", "右下角",
)  # fmt: skip
_SAY_SHAPE: Final = {
    "circle": "{圆形|圆形|圆|圆圈}",
    "square": "{正方形|正方形|方形|方块}",
    "triangle": "{三角形|三角形|三角}",
    "star": "{星形|星星|五角星}",
    "heart": "{心形|心形|爱心|心}",
    "cross": "{十字形|十字|十字}",
}
_SAY_PLACE: Final = (
    "{左上角|左上方|左上}",
    "{上方|上面|正上方|顶部}",
    "{右上角|右上方|右上}",
    "{左边|左侧|最左边}",
    "{中间|中央|正中间|中心}",
    "{右边|右侧|最右边}",
    "{左下角|左下方|左下}",
    "{下方|下面|正下方|底部}",
    "{右下角|右下方|右下}",
)
_NUMBERS: Final = ("零", "一", "两", "三", "四", "五", "六")
_DIRECTIONS: Final = {
    Direction.LEFT: "左边",
    Direction.RIGHT: "右边",
    Direction.ABOVE: "上面",
    Direction.BELOW: "下面",
}
_SAY_DIRECTION: Final = {
    Direction.LEFT: "{左边|左侧|左面}",
    Direction.RIGHT: "{右边|右侧|右面}",
    Direction.ABOVE: "{上面|上方|上边}",
    Direction.BELOW: "{下面|下方|下边}",
}
_PIC: Final = "{图|图片|画|照片}"
_IN: Final = "{图中|图里|图片里|画面中|画里|图上|}"
_ASK: Final = {
    Kind.DESCRIBE: (
        "{请|}{描述|描述一下|说明|介绍一下}{这张|这幅|}" + _PIC + "{片|}{。|}",
        "{图中|图里|图片里|画面中|画里|图上|这里|这张图里}{有|都有|画了|画的是}{什么|些什么|哪些东西|哪些图形}？",
        "你{看到|看见|能看到}{了|}{什么|哪些图形|些什么}？",
        "这{是什么|张图画了什么|是什么图|幅画画的是什么}？",
        "{请|}{列出|说出}{图中的|}{所有的|所有|}图形。",
        "图形都在{哪里|哪儿|什么位置}？",
        "有{什么|哪些}颜色？",
    ),
    Kind.COUNT: (
        _IN + "{一共|总共|}有{几个|多少个|多少}@？",
        "{数一数|请数一下|数数}" + _IN + "{有几个|}@{。|}",
        "@{有几个|有多少个|的数量是多少}？",
        "你{看到|看见}{几个|多少个}@？",
    ),
    Kind.COLOUR: (
        _IN + "@是{什么|哪种|啥}颜色{的|}？",
        "@的颜色{是什么|}？",
        "{请|}{说出|告诉我}@的颜色。",
        "@{什么|啥}颜色？",
    ),
    Kind.SHAPE: (
        _IN + "{#的|#的}{图形|东西|那个}是{什么形状|什么|什么图形}？",
        "{什么|哪个|哪些}{形状|图形|东西}是#的？",
        "#{的|}{图形|东西}的形状{是什么|}？",
        "#的是什么{形状|图形|}？",
    ),
    Kind.WHERE: (
        _IN + "@{在哪里|在哪儿|在哪|在什么位置|在什么地方}？",
        "@的位置{在哪里|是什么|}？",
        "{请|}{找到|找出|找一下}@。",
        "{请|}告诉我@在{哪里|哪儿}。",
        "{哪里|哪儿}有@？",
    ),
    Kind.EXISTS: (
        _IN + "有@吗？",
        _IN + "有没有@？",
        "{能|你能}{看到|看见}@吗？",
        _IN + "是否有@？",
        _IN + "{存在|包含}@吗？",
    ),
    Kind.GROUND: (
        "{背景|底色}{是什么颜色|是什么颜色的|的颜色是什么|颜色|是什么}？",
        "{图片|图|画面}的{背景|底色}是{什么颜色|什么|哪种颜色}？",
        "什么颜色的背景？",
        "{请|}{说出|告诉我}背景{的|}颜色。",
    ),
    Kind.BESIDE: (
        "@{的|}~{有什么|是什么|有哪些图形|有什么图形|有什么东西}？",
        "{什么|哪个图形|哪些图形}在@{的|}~？",
        "{请|}告诉我@{的|}~{有什么|是什么}。",
        "@{的|}~{有东西|有图形|有什么}吗？",
    ),
    Kind.RELATION: (
        "@{是|}在%{的|}~吗？",
        "@{是不是|是否}在%{的|}~？",
        "@在%{的|}~，{对吗|对不对|是吗}？",
    ),
    Kind.PLACE: (
        "{图片|图的|画面|}^{有什么|是什么|有什么图形|是什么图形|的图形是什么}？",
        "^{有没有|有}{东西|图形}{吗|}？",
        "{什么|哪个图形}在^？",
        "{请|}告诉我^{有什么|是什么}。",
    ),
}
_AND: Final = ("@呢？", "那@呢？", "那么@呢？", "还有@呢？")
_IT: Final = {
    Kind.WHERE: (
        "它在{哪里|哪儿|哪|什么位置}？",
        "{那|}在{哪里|哪儿}？",
        "它的位置呢？",
        "位置呢？",
    ),
    Kind.COLOUR: ("它是什么颜色{的|}？", "{那|}什么颜色？", "它的颜色呢？", "颜色呢？"),
    Kind.SHAPE: ("它是什么形状{的|}？", "{那|}什么形状？", "它的形状呢？", "形状呢？"),
}
_STRANGE: Final = (
    "狗", "猫", "鸟", "鱼", "汽车", "火车", "房子", "树", "花", "山",
    "河", "太阳", "月亮", "云", "人", "男人", "女人", "孩子", "手", "书",
    "桌子", "椅子", "电话", "电脑", "窗户", "门", "路", "船", "飞机", "机器人",
    "苹果", "面包", "咖啡", "鞋", "帽子", "衣服", "音乐", "电影", "城市", "国家",
    "学校", "医生", "老虎", "大象",
)  # fmt: skip
_TALK: Final[dict[Topic, tuple[str, ...]]] = {
    Topic.HELLO: ("{你好|您好|嗨|大家好|早上好|晚上好|哈喽}{！|。|呀|啊|}",),
    Topic.ABILITY: (
        "你{能|会|可以}{做什么|做些什么|干什么|帮我什么}？",
        "{你有什么功能|你有什么本领|怎么用|我可以问什么|能问你什么问题|帮助|帮帮我}？",
    ),
    Topic.WHO: (
        "你是{谁|什么|哪个模型|什么模型|机器人吗|真人吗}？",
        "你叫什么{名字|}？",
        "{请|}{介绍一下你自己|自我介绍一下}。",
    ),
    Topic.HOW: ("你好吗？", "你{今天|最近|}{怎么样|过得怎么样|还好吗}？"),
    Topic.THANKS: (
        "{谢谢|谢谢你|多谢|非常感谢|感谢}{！|。|}",
        "{很好|真棒|不错|太好了|对|正确}{！|。|}{谢谢。|}",
    ),
    Topic.BYE: ("{再见|拜拜|回头见|晚安|下次见}{！|。|}",),
    Topic.SHAPES: ("你{认识|知道}{哪些|什么}{形状|图形}？",),
    Topic.COLOURS: ("你{认识|知道}{哪些|什么}颜色？",),
    Topic.BEYOND: (
        _IN + "有{没有|}$吗？",
        "$在哪里？",
        "$是什么颜色？",
        _IN + "有几个$？",
        "{你能看到|这是|你喜欢|你有}$吗？",
        "{讲个笑话|讲个故事|唱首歌|写一首诗|写代码|写一首关于$的诗}{吧|。|}",
        "{今天天气怎么样|现在几点|今天几号|法国的首都是哪里|一加一等于几}？",
        "{你喜欢我吗|为什么|生命的意义是什么|什么是$|$多大了}？",
    ),
}
_ANSWER_TALK: Final = {
    Topic.HELLO: "你好！给我看一张有彩色图形的图片，然后问我吧。",
    Topic.ABILITY: "我可以描述彩色图形的图片，数图形，说出它们的颜色和位置。",
    Topic.WHO: "我是一个小小的演示模型，喜欢彩色图形。",
    Topic.HOW: "我很好，谢谢。我们来看一张图片吧？",
    Topic.THANKS: "不客气！",
    Topic.BYE: "再见！",
    Topic.SHAPES: "我认识圆形、正方形、三角形、星形、心形和十字形。",
    Topic.COLOURS: "我认识红色、橙色、黄色、绿色、蓝色、紫色、粉色和棕色。",
    Topic.NO_PICTURE: "请先给我看一张图片。",
    Topic.BEYOND: "这个我不知道。我只认识图片里的彩色图形。",
}


def ask(query: Query, rng: random.Random) -> str:
    """One of the wordings of the question."""
    if query.kind is Kind.TALK:
        return _ask_talk(query.topic, rng)
    if query.form is Form.IT:
        return expand(rng.choice(_IT[query.kind]), rng)
    template = rng.choice(_AND if query.form is Form.AND else _ASK[query.kind])
    template = template.replace("~", _SAY_DIRECTION[query.direction])
    template = template.replace("^", _SAY_PLACE[query.cell])
    if query.form is Form.FULL and query.kind is Kind.SHAPE and query.target.colour:
        template = template.replace("#", COLOURS[query.target.colour])
    for mark, reference in (("@", query.target), ("%", query.other)):
        template = template.replace(mark, _loosely(reference, rng))
    return expand(template, rng)


def _ask_talk(topic: Topic, rng: random.Random) -> str:
    if topic is Topic.NO_PICTURE:
        kind = rng.choice([kind for kind in _ASK if kind is not Kind.RELATION])
        target = Reference(rng.choice(("red", "blue", "green")), rng.choice(list(SHAPES)))
        if kind is Kind.COLOUR or (kind is not Kind.SHAPE and rng.random() < 0.5):
            target = Reference(shape=target.shape)
        direction, cell = rng.choice(list(Direction)), rng.randrange(len(PLACES))
        return ask(Query(kind, target, direction=direction, cell=cell), rng)
    return expand(rng.choice(_TALK[topic]), rng).replace("$", rng.choice(_STRANGE))


def _loosely(reference: Reference, rng: random.Random) -> str:
    noun = _SAY_SHAPE[reference.shape] if reference.shape else "{图形|图形|形状|东西}"
    if reference.colour is None:
        return noun if reference.shape else "图形"
    return COLOURS[reference.colour] + rng.choice(("的", "的", "")) + noun


def note(target: Reference, scene: Scene, rng: random.Random) -> tuple[str, str]:
    """Words for things, and how many there are; of a single one also what and where it is."""
    found = target.matches(scene)
    words = expand(_loosely(target, rng), rng)
    if not found:
        return words, "没有，"
    if len(found) > 1:
        return words, f"{_NUMBERS[len(found)]}个，"
    return words, f"一个{_called(found[0])}在{PLACES[found[0].cell]}，"


def answer(query: Query, scene: Scene) -> str:
    """The one right answer; as in English, it names the thing before it says what is so."""
    if query.kind is Kind.TALK:
        return _ANSWER_TALK[query.topic]
    if query.kind is Kind.DESCRIBE:
        return _describe(scene)
    if query.kind is Kind.GROUND:
        return f"背景是{GROUNDS[scene.ground]}的。"
    if query.kind is Kind.PLACE:
        return _at(query.cell, scene)
    found = query.target.matches(scene)
    subject = called(query.target)
    if query.kind is Kind.COUNT:
        return f"{subject}{_has(len(found)) if found else '一个也没有'}。"
    if query.kind is Kind.EXISTS:
        return f"{subject}？{f'有，{_NUMBERS[len(found)]}个' if found else '没有'}。"
    if query.kind is Kind.RELATION:
        return _relation(query, scene, found)
    if query.kind is Kind.BESIDE:
        return _beside(query, scene, found)
    if query.form is Form.IT:
        return f"它{_attribute(query.kind, found[0])}。"
    if not found:
        return f"{subject}不在图中。"
    if len(found) == 1:
        return f"{subject}{_attribute(query.kind, found[0])}。"
    return f"{subject}{_has(len(found))}：{_join([_bare(query.kind, t) for t in found])}。"


def _has(count: int) -> str:
    return f"有{_NUMBERS[count]}个"


def _join(words: list[str]) -> str:
    return words[0] if len(words) == 1 else f"{'、'.join(words[:-1])}和{words[-1]}"


def called(reference: Reference) -> str:
    """Words for things of a kind."""
    noun = SHAPES[reference.shape] if reference.shape else "图形"
    return noun if reference.colour is None else f"{COLOURS[reference.colour]}的{noun}"


def _called(thing: Thing) -> str:
    return f"{COLOURS[thing.colour]}的{SHAPES[thing.shape]}"


def _bare(kind: Kind, thing: Thing) -> str:
    if kind is Kind.COLOUR:
        return COLOURS[thing.colour]
    if kind is Kind.SHAPE:
        return SHAPES[thing.shape]
    return PLACES[thing.cell]


def _attribute(kind: Kind, thing: Thing) -> str:
    if kind is Kind.COLOUR:
        return f"是{COLOURS[thing.colour]}的"
    return f"是{SHAPES[thing.shape]}" if kind is Kind.SHAPE else f"在{PLACES[thing.cell]}"


def _describe(scene: Scene) -> str:
    ground = f"{GROUNDS[scene.ground]}背景上"
    if not scene.things:
        return f"{ground}没有图形。"
    each = "，".join(f"{PLACES[thing.cell]}是{_called(thing)}" for thing in scene.things)
    return f"{ground}有{_NUMBERS[len(scene.things)]}个图形：{each}。"


def _at(cell: int, scene: Scene) -> str:
    for thing in scene.things:
        if thing.cell == cell:
            return f"{PLACES[cell]}是{_called(thing)}。"
    return f"{PLACES[cell]}什么都没有。"


def _beside(query: Query, scene: Scene, found: tuple[Thing, ...]) -> str:
    subject = called(query.target)
    if not found:
        return f"{subject}不在图中。"
    if len(found) > 1:
        return f"{subject}{_has(len(found))}，所以说不清。"
    there = [_called(thing) for thing in scene.things if lies(thing, query.direction, found[0])]
    beside = f"是{_join(there)}" if there else "什么都没有"
    return f"{subject}在{PLACES[found[0].cell]}，它的{_DIRECTIONS[query.direction]}{beside}。"


def _relation(query: Query, scene: Scene, found: tuple[Thing, ...]) -> str:
    others = query.other.matches(scene)
    one, two = called(query.target), called(query.other)
    if not found:
        return f"{one}不在图中，所以不是。"
    if len(found) > 1:
        return f"{one}{_has(len(found))}，所以说不清。"
    both = f"{one}在{PLACES[found[0].cell]}，{two}"
    if not others:
        return f"{both}不在图中，所以不是。"
    if len(others) > 1:
        return f"{both}{_has(len(others))}，所以说不清。"
    is_so = lies(found[0], query.direction, others[0])
    return f"{both}在{PLACES[others[0].cell]}，所以{'是的' if is_so else '不是'}。"
