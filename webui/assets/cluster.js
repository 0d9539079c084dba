// Keeps the cluster view live, and drains a worker for who has the fleet's key.
const cluster = document.getElementById("cluster");

async function refresh() {
  // What is being read with the pointer or the keyboard is not taken away.
  if (!document.hidden && !cluster.contains(document.activeElement)) {
    try {
      const reply = await fetch("./cluster/live");
      if (reply.ok) {
        const left = cluster.querySelector(".scroll")?.scrollLeft || 0;
        cluster.innerHTML = await reply.text();
        const table = cluster.querySelector(".scroll");
        if (table) table.scrollLeft = left;
      }
    } catch {
      // The page's server is away for a moment: the next round asks again.
    }
  }
  setTimeout(refresh, 1000);
}
setTimeout(refresh, 1000);

cluster.addEventListener("click", async (event) => {
  const button = event.target.closest("[data-drain]");
  if (!button) return;
  const key = prompt(button.dataset.ask, "");
  button.blur();
  if (key === null) return;
  try {
    await call("POST", "./cluster/drain", { worker_id: button.dataset.drain, admin_key: key });
  } catch (error) {
    alert(error.message);
  }
});
