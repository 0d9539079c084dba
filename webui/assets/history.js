// Rename, pin and delete in the history.
document.addEventListener("click", async (event) => {
  const button = event.target.closest("button[data-do]");
  if (!button) return;
  const chat = button.closest("[data-chat]");
  const path = `./history/${chat.dataset.chat}`;
  try {
    if (button.dataset.do === "rename") return edit(chat, path);
    if (button.dataset.do === "pin") {
      await call("POST", `${path}/pin`, { is_pinned: chat.dataset.pinned !== "true" });
      location.reload();
    }
    if (button.dataset.do === "delete" && confirm(button.dataset.ask)) {
      await call("DELETE", path);
      chat.remove();
    }
  } catch (error) {
    alert(error.message);
  }
});

function edit(chat, path) {
  const link = chat.querySelector(".title");
  const field = Object.assign(document.createElement("input"), {
    className: "title",
    value: link.textContent,
    maxLength: 200,
  });
  field.setAttribute("aria-label", "Title");
  link.replaceWith(field);
  field.select();
  let isOver = false;
  const end = async (isKept) => {
    if (isOver) return;
    isOver = true;
    try {
      if (isKept) link.textContent = (await call("POST", `${path}/title`, { title: field.value })).title;
    } catch (error) {
      alert(error.message);
    }
    field.replaceWith(link);
    link.focus();
  };
  field.addEventListener("keydown", (event) => {
    if (event.key === "Enter") end(true);
    if (event.key === "Escape") end(false);
  });
  field.addEventListener("blur", () => end(true));
}
