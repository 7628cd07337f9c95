// Links of the app open in the same tab, without loading everything again, wherever they stand: Streamlit gives those of
// Markdown and of tables a tab of their own. A download that was pressed while its page was drawn anew starts all the
// same. What Streamlit hides from a screen reader or a keyboard is mended. The list of keyboard shortcuts, under "?". And
// what draws a chart is fetched and read while its page is computed.
export default function ({ data }) {
  const page = (window.sstmergePage ??= start());
  page.pages = data.pages;
  page.keys = data.keys;
  page.title = data.title;
  if (data.early) fetchEarly(data.early);
}

function fetchEarly(name) {
  const own = document.querySelector('script[type="module"][src*="/static/js/"]');
  if (!own) return;
  const href = new URL(name, own.src).href;
  if (document.querySelector(`link[href="${href}"]`)) return;
  const link = Object.assign(document.createElement("link"), { rel: "modulepreload", href });
  link.crossOrigin = own.crossOrigin ?? "";
  document.head.append(link);
}

function start() {
  const page = { pages: [], keys: [], title: "" };
  const inApp = (href) => {
    try {
      const url = new URL(href, location.href);
      const base = page.base ?? "";
      const name = url.pathname.slice(base.length).replace(/^\/|\/$/g, "");
      return url.origin === location.origin && page.pages.includes(name) ? url : null;
    } catch {
      return null;
    }
  };
  // the page that is open, off the path: what is before it is where a reverse proxy put the app
  const here = location.pathname.replace(/\/[^/]*$/, "");
  page.base = here;

  function go(url) {
    if (url.href === location.href) return;
    history.pushState({}, "", url);
    window.dispatchEvent(new PopStateEvent("popstate"));
  }

  document.addEventListener(
    "click",
    (event) => {
      const link = event.composedPath().find((node) => node.tagName === "A" && node.href);
      if (!link || event.button || event.ctrlKey || event.metaKey || event.shiftKey || link.hasAttribute("download")) {
        return;
      }
      const url = link.target === "_blank" && inApp(link.href);
      if (!url) return;
      event.preventDefault();
      event.stopPropagation();
      go(url);
    },
    true,
  );

  const open = window.open.bind(window);
  window.open = (href, target, ...rest) => {
    const url = (!target || target === "_blank") && typeof href === "string" && inApp(href);
    if (!url || held) return open(href, target, ...rest);
    go(url);
    return null;
  };
  let held = false; // with Ctrl or the like a table's link still gets a tab of its own
  for (const kind of ["pointerdown", "pointerup", "keydown", "keyup"]) {
    window.addEventListener(kind, (event) => (held = event.ctrlKey || event.metaKey || event.shiftKey), true);
  }

  document.addEventListener("keydown", (event) => {
    const typing = event.composedPath().some((node) => /^(INPUT|TEXTAREA|SELECT)$/.test(node.tagName ?? ""));
    if (event.key === "?" && !typing && !event.ctrlKey && !event.metaKey) show(page);
  });

  // Streamlit forgets what a download button makes as soon as the page is drawn anew, and the press of one who was
  // quicker than the drawing fails ("Failed to generate file"): it is pressed again, three times at most.
  const pressed = new Map(); // button's key → times pressed again
  reach();
  new MutationObserver((changes) => {
    if (!changes.some((change) => change.addedNodes.length)) return;
    reach();
    for (const failure of document.querySelectorAll('[data-testid="stDownloadButtonError"]:not([data-seen])')) {
      failure.dataset.seen = "";
      const button = failure.closest('[data-testid="stDownloadButton"]')?.querySelector("button");
      const key = failure.closest('[class*="st-key-"]')?.className ?? button?.textContent;
      const again = (pressed.get(key) ?? 0) + 1;
      if (!button || again > 3) continue;
      pressed.set(key, again);
      setTimeout(() => document.contains(button) && button.click(), 300 * again);
      setTimeout(() => pressed.delete(key), 10_000);
    }
  }).observe(document.body, { childList: true, subtree: true });
  return page;
}

// The folded menu is a list whose sections are none of its items, and what is wide scrolls by the mouse alone.
function reach() {
  for (const menu of document.querySelectorAll('[data-testid="stSidebarNavItems"]')) {
    menu.setAttribute("role", "group");
    for (const part of menu.children) part.setAttribute("role", part.tagName === "LI" ? "none" : "list");
  }
  for (const wide of document.querySelectorAll(`:is(.katex-display, ${TABLES}):not([data-seen])`)) {
    wide.dataset.seen = "";
    fits.observe(wide);
  }
}

const TABLES = '[data-testid="stMarkdownContainer"] table';
const fits = new ResizeObserver((changes) => {
  for (const { target } of changes) {
    if (target.scrollWidth > target.clientWidth) target.tabIndex = 0;
    else target.removeAttribute("tabindex");
  }
});

function show(page) {
  document.getElementById("sstmerge-keys")?.remove();
  const dialog = document.createElement("dialog");
  dialog.id = "sstmerge-keys";
  dialog.setAttribute("aria-label", "Keyboard shortcuts");
  dialog.style.cssText =
    "font: inherit; border: 1px solid color-mix(in srgb, currentcolor 25%, " +
    "transparent); border-radius: 0.6rem; padding: 1.2rem 1.6rem; min-width: 18rem; max-width: 90vw; " +
    "background: Canvas; color: CanvasText; color-scheme: light dark";
  const title = document.createElement("h2");
  title.textContent = `Keyboard · ${page.title}`;
  title.style.cssText = "font-size: 1.05rem; margin: 0 0 0.7rem; padding: 0";
  const list = document.createElement("dl");
  list.style.cssText = "display: grid; grid-template-columns: auto 1fr; gap: 0.45rem 1.2rem; margin: 0";
  for (const [key, what] of [...page.keys, ["?", "This list"], ["Esc", "Close it"]]) {
    const name = document.createElement("dt");
    name.textContent = key;
    name.style.cssText = "font-family: monospace; font-weight: 600; white-space: nowrap";
    const text = document.createElement("dd");
    text.textContent = what;
    text.style.margin = "0";
    list.append(name, text);
  }
  dialog.append(title, list);
  dialog.addEventListener("click", (event) => event.target === dialog && dialog.close());
  dialog.addEventListener("close", () => dialog.remove());
  document.body.append(dialog);
  dialog.showModal();
}
