"use strict";
// Narrows the list of tasks down to those that match the form. Without scripts the whole list is there.
const form = document.getElementById("filter");
const tasks = Array.from(document.querySelectorAll("details.task"));
const texts = new Map();

function text(task) {
  if (!texts.has(task)) texts.set(task, task.textContent.toLowerCase());
  return texts.get(task);
}

function filter() {
  const words = form.elements.words.value.toLowerCase().split(/\s+/).filter(Boolean);
  const level = form.elements.level.value;
  const category = form.elements.category.value;
  const answers = form.elements.answers.value;
  let count = 0;
  for (const task of tasks) {
    const samples = Array.from(task.querySelectorAll(".sample"));
    let any = !answers;
    for (const sample of samples) {
      const fits = !answers || sample.dataset.answers.split(" ").includes(answers);
      sample.hidden = !fits;
      any ||= fits;
    }
    const shown = any && (!level || task.dataset.level === level) &&
      (!category || task.dataset.category === category) && words.every((word) => text(task).includes(word));
    task.hidden = !shown;
    count += shown;
  }
  document.getElementById("count").textContent = `${count} of ${tasks.length} tasks`;
}

if (form) {
  form.hidden = false;
  form.addEventListener("input", filter);
  form.addEventListener("submit", (event) => event.preventDefault());
  filter();
}
