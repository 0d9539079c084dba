// A battle: asks, shows both answers as they are written, votes. Texts are set as text; the HTML of
// answers is made by our own server, which escapes what models write.
const phrases = JSON.parse(document.getElementById("phrases").textContent);
const form = document.getElementById("ask");
const votes = [...document.querySelectorAll("[data-vote]")];
const sides = [0, 1].map((number) => document.querySelector(`#side-${number} .turns`));
let battle = location.hash.slice(1);
let source = null;
let isDecided = false;

function element(kind, className, text = "") {
  return Object.assign(document.createElement(kind), { className, textContent: text });
}

function addTurn(text, images) {
  for (const side of sides) {
    const turn = element("div", "turn");
    const question = element("div", "question", text);
    const pictures = images.map((image) => Object.assign(element("img", ""), { src: image, alt: "" }));
    if (pictures.length) question.prepend(...pictures, element("br", ""));
    turn.append(question, element("div", "answer"));
    side.append(turn);
  }
}

// KaTeX comes when the first formula does; until then, and for a wrong one, its TeX is shown.
let katex = null;
async function typeset(place) {
  const formulas = [...place.querySelectorAll(".formula:not([data-set])")];
  if (!formulas.length || !phrases.katex) return;
  if (!katex) {
    const style = element("link", "");
    Object.assign(style, { rel: "stylesheet", href: phrases.katex.style });
    document.head.append(style);
    if (phrases.katex.scope) document.querySelector(".sides").classList.add(phrases.katex.scope);
    katex = import(new URL(phrases.katex.script, location.href)).then((module) => module.default);
  }
  const { render } = await katex;
  for (const formula of formulas) {
    if (!formula.isConnected) continue;
    formula.dataset.set = "";
    const displayMode = formula.dataset.display !== undefined;
    render(formula.textContent, formula, { displayMode, throwOnError: false });
  }
}

const shownAnswers = new WeakMap(); // an element -> the HTML that was put into it
function show(turn, answers) {
  answers.forEach((answer, number) => {
    const place = sides[number].children[turn].querySelector(".answer");
    if (shownAnswers.get(place) !== answer.html) {
      shownAnswers.set(place, answer.html);
      place.innerHTML = answer.html;
      typeset(place);
    }
    const hasFailed = answer.state === "failed" && !place.querySelector(".failed");
    if (hasFailed) place.append(element("p", "failed error", phrases.failed));
    place.dataset.state = answer.state;
  });
  const canVote = !isDecided && answers.some((answer) => answer.html);
  for (const vote of votes) vote.disabled = !canVote;
}

function follow() {
  if (source) source.close();
  source = new EventSource(`./battle/${battle}/stream`);
  const turn = sides[0].children.length - 1;
  form.querySelector("button.primary").disabled = true;
  const end = () => {
    source.close();
    form.querySelector("button.primary").disabled = isDecided;
  };
  source.onmessage = (message) => {
    const answers = JSON.parse(message.data);
    show(turn, answers);
    if (answers.every((answer) => answer.over)) end();
  };
  source.onerror = end;
}

function reveal(result) {
  isDecided = true;
  for (const vote of votes) {
    vote.disabled = true;
    vote.setAttribute("aria-pressed", vote.dataset.vote === result.winner);
  }
  form.querySelector("button.primary").disabled = true;
  form.classList.add("decided"); // what is left to do is another battle
  const verdict = document.getElementById("verdict");
  verdict.textContent = phrases.names.replace("{0}", result.left).replace("{1}", result.right) + " ";
  const link = element("a", "", phrases.open);
  link.href = `./c/${result.chat}`;
  verdict.append(link);
  [result.left, result.right].forEach((name, number) => {
    document.querySelector(`#side-${number} h2`).textContent = name;
  });
}

async function attempt(work) {
  const problem = document.getElementById("problem");
  problem.textContent = "";
  try {
    await work();
  } catch (error) {
    problem.textContent = error.message;
  }
}

form.addEventListener("submit", (event) => {
  event.preventDefault();
  attempt(async () => {
    const body = new FormData();
    body.append("text", form.elements.text.value);
    const files = [...form.elements.files.files];
    for (const file of files) body.append("files", file);
    const asked = await call("POST", battle ? `./battle/${battle}/ask` : "./battle", body);
    battle = asked.battle;
    history.replaceState(null, "", `#${battle}`);
    addTurn(form.elements.text.value, files.map((file) => URL.createObjectURL(file)));
    form.elements.text.value = "";
    choose([]);
    follow();
  });
});

// What was chosen stands beside the buttons; a press takes it out again.
const chosen = form.querySelector(".chosen");
function choose(files) {
  const transfer = new DataTransfer();
  for (const file of files) transfer.items.add(file);
  form.elements.files.files = transfer.files;
  for (const picture of chosen.querySelectorAll("img")) URL.revokeObjectURL(picture.src);
  chosen.replaceChildren(
    ...files.map((file) => {
      const button = Object.assign(element("button", ""), { type: "button", title: file.name });
      button.setAttribute("aria-label", `${chosen.dataset.remove}: ${file.name}`);
      const picture = Object.assign(element("img", ""), { src: URL.createObjectURL(file), alt: "" });
      button.append(picture);
      button.addEventListener("click", () => choose(files.filter((each) => each !== file)));
      return button;
    }),
  );
}
form.elements.files.addEventListener("change", () => choose([...form.elements.files.files]));
function add(event, transfer) {
  const images = [...(transfer?.files ?? [])].filter((file) => file.type.startsWith("image/"));
  if (!images.length) return;
  event.preventDefault();
  choose([...form.elements.files.files, ...images]);
}
form.elements.text.addEventListener("paste", (event) => add(event, event.clipboardData));
form.addEventListener("dragover", (event) => event.preventDefault());
form.addEventListener("drop", (event) => add(event, event.dataTransfer));

form.elements.text.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
    event.preventDefault();
    if (!form.querySelector("button.primary").disabled) form.requestSubmit();
  }
});

for (const reason of document.querySelectorAll("[data-reason]"))
  reason.addEventListener("click", () =>
    reason.setAttribute("aria-pressed", reason.getAttribute("aria-pressed") !== "true"),
  );

for (const vote of votes)
  vote.addEventListener("click", () =>
    attempt(async () => {
      const reasons = [...document.querySelectorAll("[data-reason][aria-pressed=true]")];
      reveal(
        await call("POST", `./battle/${battle}/vote`, {
          winner: vote.dataset.vote,
          reasons: reasons.map((reason) => reason.dataset.reason),
          tag: document.getElementById("tag").value,
          stop: document.getElementById("stop").checked,
        }),
      );
    }),
  );

const say = (english, chinese) => (document.documentElement.lang === "zh" ? chinese : english);
document.getElementById("address")?.addEventListener("click", () =>
  askForImageAddress(say, (file) => {
    choose([...form.elements.files.files, file]);
    form.elements.text.focus();
  }),
);

document.getElementById("again").addEventListener("click", () => {
  history.replaceState(null, "", location.pathname);
  location.reload();
});

if (battle)
  attempt(async () => {
    const state = await call("GET", `./battle/${battle}`);
    state.turns.forEach((turn, number) => {
      addTurn(turn.text, turn.images.map((digest) => `./images/${digest}/small`));
      show(number, turn.sides);
    });
    const isWritten = state.turns.length && !state.turns.at(-1).sides.every((side) => side.over);
    if (state.winner) reveal(state);
    else if (isWritten) follow();
  });
