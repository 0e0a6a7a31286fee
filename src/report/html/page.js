"use strict";
// Sorts and filters tables, and looks break-even up in the grid that the program computed.
(() => {
  const number = (cell) => (cell.dataset.v === undefined ? NaN : Number(cell.dataset.v));
  const compare = (a, b) => {
    const [x, y] = [number(a), number(b)];
    if (!Number.isNaN(x) && !Number.isNaN(y)) return x - y;
    // What has no number stands last in rising order.
    if (Number.isNaN(x) !== Number.isNaN(y)) return Number.isNaN(x) ? 1 : -1;
    return a.textContent.localeCompare(b.textContent, "en", { numeric: true });
  };

  const sortable = (table) => {
    const heads = [...table.tHead.rows[0].cells];
    const body = table.tBodies[0];
    heads.forEach((head, column) => {
      const button = document.createElement("button");
      button.type = "button";
      button.append(...head.childNodes);
      head.append(button);
      button.addEventListener("click", () => {
        const falls = head.getAttribute("aria-sort") === "ascending";
        heads.forEach((other) => other.removeAttribute("aria-sort"));
        head.setAttribute("aria-sort", falls ? "descending" : "ascending");
        const rows = [...body.rows];
        rows.sort((a, b) => compare(a.cells[column], b.cells[column]) * (falls ? -1 : 1));
        body.append(...rows);
      });
    });
  };

  const filterable = (table, place) => {
    const rows = [...table.tBodies[0].rows];
    const bar = document.createElement("div");
    const label = document.createElement("label");
    const input = document.createElement("input");
    const count = document.createElement("output");
    bar.className = "filter";
    input.type = "search";
    input.placeholder = "words, all of them";
    label.append("Filter rows", input);
    count.setAttribute("aria-live", "polite");
    bar.append(label, count);
    place.before(bar);
    const texts = rows.map((row) => row.textContent.toLowerCase());
    input.addEventListener("input", () => {
      const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
      let shown = 0;
      rows.forEach((row, at) => {
        row.hidden = !words.every((word) => texts[at].includes(word));
        if (!row.hidden) shown += 1;
      });
      count.textContent = words.length ? `${shown} of ${rows.length} rows` : "";
    });
  };

  for (const table of document.querySelectorAll("table:not(.list)")) {
    const rows = table.tBodies[0].rows.length;
    if (rows > 1) sortable(table);
    if (rows > 8) filterable(table, table.parentElement);
  }

  for (const explorer of document.querySelectorAll(".explorer")) {
    const grid = JSON.parse(explorer.querySelector("script").textContent);
    const form = explorer.querySelector("form");
    const answer = explorer.querySelector(".answer");
    const charts = [...explorer.querySelectorAll("svg")];
    const look = (electricity, hardware, volume) =>
      grid.answers[(electricity * grid.hardware.length + hardware) * grid.volume.length + volume];
    const update = () => {
      const at = {};
      for (const name of ["volume", "electricity", "hardware"]) {
        const input = form.elements[name];
        at[name] = Number(input.value);
        const shown = grid[name][at[name]];
        input.setAttribute("aria-valuetext", shown);
        form.querySelector(`output[for="${input.id}"]`).textContent = shown;
      }
      const [months, text, owning, cloud] = look(at.electricity, at.hardware, at.volume);
      const when = months === null
        ? `owning never breaks even in its ${grid.lifeShown}`
        : `owning breaks even after ${text}`;
      answer.textContent =
        `At ${grid.volume[at.volume]} a working day, ${grid.hardware[at.hardware]} for a device and ` +
        `${grid.electricity[at.electricity]}, ${when}: it costs ${owning} a month, ` +
        `${grid.against} ${cloud}.`;
      for (const chart of charts) {
        const xs = chart.dataset.x.split(" ").map(Number);
        const [top, bottom] = [Number(chart.dataset.top), Number(chart.dataset.bottom)];
        const up = (value) => (bottom - (value / grid.life) * (bottom - top)).toFixed(1);
        let path = "";
        let isDrawing = false;
        xs.forEach((x, volume) => {
          const value = look(at.electricity, at.hardware, volume)[0];
          if (value !== null) path += `${isDrawing ? "L" : "M"}${x} ${up(value)}`;
          isDrawing = value !== null;
        });
        chart.querySelector(".curve").setAttribute("d", path);
        const here = chart.querySelector(".here");
        here.setAttribute("cx", xs[at.volume]);
        here.setAttribute("cy", up(months === null ? grid.life : months));
        here.classList.toggle("never", months === null);
        here.querySelector("title").textContent = answer.textContent;
      }
    };
    form.addEventListener("input", update);
    form.addEventListener("submit", (event) => event.preventDefault());
    // The browser may have kept what was set before the page was loaded again.
    form.reset();
    form.hidden = false;
  }
})();
