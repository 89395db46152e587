// Narrows the table of tasks down. Whatever comes from data is set as text, never as markup.
"use strict";

const form = document.getElementById("filter");
const count = document.getElementById("count");
const index = JSON.parse(document.getElementById("index").textContent);
const more = document.getElementById("more");
const FIELDS = ["q", "family", "category", "scheme", "level"];
// Characters of a definition around what was found.
const SNIPPET = 160;
// Rows of the table until more are asked for: laying out thousands would make every keystroke wait.
const ROWS = 200;
let limit = ROWS;

// One entry a row of the table, in the same order as the index.
const tasks = Array.from(document.querySelectorAll("#tasks tbody tr"), (row, i) => {
  const [definition, source, levels] = index.tasks[i];
  const [name, family, category] = Array.from(row.cells, (cell) => cell.textContent);
  const words = [name, category, family, source, definition].join("\n").toLowerCase();
  return { row, family, category, definition, levels, words, lower: definition.toLowerCase() };
});

function chosen() {
  return Object.fromEntries(FIELDS.map((name) => [name, form.elements[name].value]));
}

// The definition around the first word that was searched for, with that word marked.
function snippet(task, terms) {
  const term = terms.find((word) => task.lower.includes(word));
  if (!term) return null;
  const at = task.lower.indexOf(term);
  const start = Math.max(0, at - SNIPPET / 2);
  const end = Math.min(task.definition.length, start + SNIPPET);
  const found = document.createElement("mark");
  found.textContent = task.definition.slice(at, at + term.length);
  const line = document.createElement("p");
  line.className = "snippet";
  line.append(start ? "…" : "", task.definition.slice(start, at), found);
  line.append(task.definition.slice(at + term.length, end), end < task.definition.length ? "…" : "");
  return line;
}

function update() {
  const wanted = chosen();
  const terms = wanted.q.toLowerCase().split(/\s+/).filter(Boolean);
  const place = index.schemes.indexOf(wanted.scheme);
  let fitting = 0;
  for (const task of tasks) {
    const fits = (!wanted.family || task.family === wanted.family) &&
      (!wanted.category || task.category === wanted.category) &&
      (!wanted.level || task.levels[place] === wanted.level) && terms.every((word) => task.words.includes(word));
    if (fits) fitting += 1;
    task.row.hidden = !fits || fitting > limit;
    if (task.row.hidden) continue;
    const cells = task.row.cells;
    const level = task.levels[place].replaceAll("_", " ");
    if (cells[3].textContent !== level) cells[3].textContent = level;
    cells[0].querySelector(".snippet")?.remove();
    const line = terms.length ? snippet(task, terms) : null;
    if (line) cells[0].append(line);
  }
  const told = `${fitting.toLocaleString("en")} of ${tasks.length.toLocaleString("en")} tasks`;
  count.textContent = fitting > limit ? `${told}; the first ${limit} are shown` : told;
  more.hidden = fitting <= limit;
}

// The address holds what was chosen, so that it can be kept and sent.
function remember() {
  const values = Object.entries(chosen()).filter(([, value]) => value);
  try {
    history.replaceState(null, "", `?${new URLSearchParams(values)}`);
  } catch {
    // Some browsers refuse this to pages on disk; the search works all the same.
  }
}

const asked = new URLSearchParams(location.search);
for (const name of FIELDS) {
  const field = form.elements[name];
  const known = field.options && Array.from(field.options, (option) => option.value);
  if (asked.has(name) && (!known || known.includes(asked.get(name)))) field.value = asked.get(name);
}
form.addEventListener("input", () => { limit = ROWS; update(); });
more.addEventListener("click", () => {
  limit = Infinity;
  update();
  // The button is gone; whoever pressed it goes on where the list grew.
  tasks.filter((task) => !task.row.hidden)[ROWS].row.querySelector("a").focus();
});
form.addEventListener("change", remember);
form.addEventListener("submit", (event) => { event.preventDefault(); remember(); });
// A browser that goes back fills the fields in after all this has run.
window.addEventListener("pageshow", update);
update();
