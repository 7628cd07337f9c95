// Words that fit where the caret is in the SQL editor, in a line below it: Tab takes the first, a click any.
// A line, not a list at the caret: it hides nothing, and a finger reaches it.
const MOST = 7;

export default function ({ parentElement, data }) {
  const bar = parentElement.querySelector(".words");
  const area = document.querySelector(data.area);
  if (!bar || !area) return;
  let found = [];

  const before = () => area.value.slice(0, area.selectionStart);
  const close = () => show([]);

  function show(words) {
    found = words;
    bar.replaceChildren();
    if (!words.length) {
      const hint = document.createElement("span");
      hint.textContent = data.hint;
      bar.append(hint);
    }
    words.forEach(([word, about], place) => {
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = word;
      button.title = about;
      button.tabIndex = -1; // Tab belongs to the editor
      if (place === 0) button.className = "first";
      button.addEventListener("pointerdown", (event) => {
        event.preventDefault(); // the editor keeps the focus
        take(word);
      });
      bar.append(button);
    });
  }

  function take(word) {
    const typed = before().match(/\w*$/)[0];
    area.focus();
    area.setSelectionRange(area.selectionStart - typed.length, area.selectionStart);
    document.execCommand("insertText", false, word); // keeps the browser's undo, and React hears of it
    close();
  }

  function suggest() {
    const typed = before().match(/(?:(\w+)\.)?(\w*)$/);
    const [, owner, start] = typed;
    if (area.selectionStart !== area.selectionEnd || (!owner && start.length < 2)) return close();
    const used = mentioned(area.value);
    const table = owner && (data.columns[owner] ? owner : used.get(owner));
    let pool;
    if (owner) pool = table ? data.columns[table] : [];
    else {
      const near = [...new Set(used.values())].flatMap((name) => data.columns[name] ?? []);
      pool = [...near, ...data.tables, ...data.words, ...(near.length ? [] : Object.values(data.columns).flat())];
    }
    const fits = new Map();
    for (const [word, about] of pool) {
      const same = word.toLowerCase() === start.toLowerCase();
      if (!same && word.toLowerCase().startsWith(start.toLowerCase()) && !fits.has(word)) fits.set(word, about);
    }
    show([...fits].slice(0, MOST));
  }

  // table of each name that the query gives one: FROM samples s JOIN runs AS r
  function mentioned(sql) {
    const names = new Map();
    for (const [, table, alias] of sql.matchAll(/\b(?:from|join)\s+(\w+)(?:\s+(?:as\s+)?(\w+))?/gi)) {
      if (!data.columns[table]) continue;
      names.set(table, table);
      if (alias) names.set(alias, table);
    }
    return names;
  }

  function onKey(event) {
    if (!found.length || event.isComposing) return;
    if (event.key === "Tab" && !event.shiftKey) {
      event.preventDefault();
      take(found[0][0]);
    } else if (event.key === "Escape") {
      event.preventDefault();
      close();
    }
  }

  close();
  area.addEventListener("input", suggest);
  area.addEventListener("keydown", onKey);
  area.addEventListener("blur", close);
  return () => {
    area.removeEventListener("input", suggest);
    area.removeEventListener("keydown", onKey);
    area.removeEventListener("blur", close);
  };
}
