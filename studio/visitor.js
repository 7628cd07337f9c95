// Tells the visitor that a job of theirs has ended: by a notification of the browser where they allowed it, and in any
// case by the page's title, which one sees from another tab. Remembers their name and the switch in this browser.
const SHOWN_MS = 10_000;
const REMEMBERED = 100;

export default function ({ parentElement, data, setStateValue }) {
  const box = parentElement.querySelector("input");
  const why = parentElement.querySelector(".why");
  if (!box) return;

  const known = memory("sstmerge.name");
  if (data.name && data.name !== known) memory("sstmerge.name", data.name);
  else if (!data.name && known) setStateValue("name", known);

  // jobs launched in another tab of this browser are the same person's
  const mine = data.mine ?? [];
  const remembered = list(memory("sstmerge.jobs"));
  const all = [...new Set([...remembered, ...mine])].slice(-REMEMBERED);
  if (all.length !== remembered.length) memory("sstmerge.jobs", JSON.stringify(all));
  if (all.some((id) => !mine.includes(id))) setStateValue("jobs", all);

  const able = "Notification" in window && window.isSecureContext;
  const wanted = () => memory("sstmerge.notify") === "1";

  function draw() {
    box.checked = wanted();
    const granted = able && Notification.permission === "granted";
    why.textContent = !wanted() || granted ? "" : "The browser does not allow it here; the page's title will say it.";
  }

  box.onchange = async () => {
    memory("sstmerge.notify", box.checked ? "1" : "0");
    if (box.checked && able && Notification.permission === "default") await Notification.requestPermission();
    draw();
  };
  draw();

  // one memory for all pages of this tab: another page must not tell it again
  const seen = (window.sstmergeJobs ??= {});
  for (const job of data.jobs) {
    if (seen[job.id] && !job.active) tell(job, able && wanted());
    seen[job.id] = job.active;
  }
}

function tell(job, notify) {
  if (notify && Notification.permission === "granted") {
    try {
      new Notification(`${job.name}: ${job.state}`, { body: job.error, tag: job.id });
    } catch {
      // a telephone's browser has the interface and refuses to use it; the title remains
    }
  }
  const mark = `(${job.state}) `;
  const until = Date.now() + SHOWN_MS;
  const timer = setInterval(() => {
    const plain = document.title.replaceAll(mark, "");
    const over = !document.hidden && Date.now() > until;
    document.title = over ? plain : mark + plain;
    if (over) clearInterval(timer);
  }, 500);
}

function list(text) {
  try {
    const found = JSON.parse(text || "[]");
    return Array.isArray(found) ? found.filter((id) => typeof id === "string") : [];
  } catch {
    return [];
  }
}

// localStorage may be forbidden; then nothing is remembered
function memory(name, value) {
  try {
    if (value !== undefined) localStorage.setItem(name, value);
    return localStorage.getItem(name) ?? "";
  } catch {
    return "";
  }
}
