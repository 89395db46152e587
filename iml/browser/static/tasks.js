// Narrows the table of tasks down. Whatever comes from data is set as text, never as markup.
"use strict";

const form = document.getElementById("filter");
const count = document.getElementById("count");
const index = JSON.parse(document.getElementById("index").textContent);
const SNIPPET = 160;

// One entry a row of the table, in the same order as the index.
const tasks = Array.from(document.querySelectorAll("#tasks tbody tr"), (row, i) => {
  const [definition, source, levels] = index.tasks[i];
  const [name, family, category, level] = Array.from(row.cells, (cell) => cell.textContent);
  const words = [name, category, family, source, definition].join("\n").toLowerCase();
  return { row, family, category, level, definition, levels, words, lower: definition.toLowerCase() };
});

function chosen() {
  const values = {};
  for (const name of ["q", "family", "category", "scheme", "level"]) {
    values[name] = form.elements[name].value;
  }
  return values;
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
  const { q, family, category, scheme, level } = chosen();
  const terms = q.toLowerCase().split(/\s+/).filter(Boolean);
  const place = index.schemes.indexOf(scheme);
  let shown = 0;
  for (const task of tasks) {
    const fits = (!family || task.family === family) && (!category || task.category === category) &&
      (!level || task.levels[place] === level) && terms.every((word) => task.words.includes(word));
    task.row.hidden = !fits;
    if (!fits) continue;
    shown += 1;
    const cells = task.row.cells;
    const told = task.levels[place].replaceAll("_", " ");
    if (cells[3].textContent !== told) cells[3].textContent = told;
    cells[0].querySelector(".snippet")?.remove();
    const line = terms.length ? snippet(task, terms) : null;
    if (line) cells[0].append(line);
  }
  count.textContent = `${shown.toLocaleString("en")} of ${tasks.length.toLocaleString("en")} tasks`;
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

for (const [name, value] of new URLSearchParams(location.search)) {
  const field = form.elements[name];
  if (!field) continue;
  if (field.tagName === "SELECT" && !Array.from(field.options).some((option) => option.value === value)) continue;
  field.value = value;
}
form.addEventListener("input", update);
form.addEventListener("change", remember);
form.addEventListener("submit", (event) => { event.preventDefault(); remember(); });
update();
