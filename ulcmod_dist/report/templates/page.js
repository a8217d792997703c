"use strict";
(() => {
  const figures = JSON.parse(document.getElementById("figures").textContent);
  const root = document.documentElement;
  const all = (selector, within = document) => [...within.querySelectorAll(selector)];

  // Light and dark.
  const system = window.matchMedia("(prefers-color-scheme: dark)");
  const isDark = () => (root.dataset.theme || (system.matches ? "dark" : "light")) === "dark";
  const remember = (theme) => { try { localStorage.setItem("ulcmod-theme", theme); } catch { /* private window */ } };
  try { root.dataset.theme = localStorage.getItem("ulcmod-theme") || ""; } catch { /* private window */ }
  document.getElementById("theme").addEventListener("click", () => {
    root.dataset.theme = isDark() ? "light" : "dark";
    remember(root.dataset.theme);
    redraw();
  });
  system.addEventListener("change", redraw);

  // Figures are drawn when they come near the window, in the colours of the moment.
  const drawn = new Set();
  function parts(name, narrow) {
    const { data, layout, dark, narrow: small } = structuredClone(figures[name]);
    const figure = { data, layout };
    for (const [path, value] of [...(isDark() ? dark : []), ...(narrow ? small : [])]) {
      const last = path.pop();
      path.reduce((part, key) => part[key], figure)[last] = value;
    }
    return figure;
  }
  function draw(box) {
    const plot = box.querySelector(".plot");
    const { data, layout } = parts(box.dataset.figure, plot.clientWidth < 360);
    layout.height = Math.max(layout.height, plot.clientHeight);
    const done = Plotly.react(plot, data, layout, { displayModeBar: false, responsive: true, doubleClick: false });
    done.then(() => fit(plot));
    if (drawn.has(box)) return;
    drawn.add(box);
    plot.on("plotly_afterplot", () => fit(plot));
    const picks = figures[box.dataset.figure].picks;
    if (picks) pickRows(box, plot, picks);
  }

  // Texts in cells show only where the cells have room for them.
  const pen = document.createElement("canvas").getContext("2d");
  function fit(plot) {
    const traces = plot.data.flatMap((trace, index) => trace.name === "cell texts" ? [index] : []);
    const area = plot.querySelector(".nsewdrag")?.getBoundingClientRect();
    if (!traces.length || !area?.width) return;
    const [cells] = plot.data;
    pen.font = `${plot.data[traces[0]].textfont.size}px ${plot.layout.font.family}`;
    const widest = Math.max(0, ...traces.flatMap((index) => plot.data[index].text).map((text) => pen.measureText(text).width));
    const room = area.width / cells.z[0].length >= Math.max(30, widest + 3) && area.height / cells.z.length >= 24;
    if ((plot.data[traces[0]].visible ?? true) !== room) Plotly.restyle(plot, { visible: room }, traces);
  }

  // A click anywhere in a row, not only on its dot, opens the row's module. Rows fill the axis.
  function pickRows(box, plot, picks) {
    plot.classList.add("picks");
    plot.addEventListener("click", (event) => {
      const area = plot.querySelector(".nsewdrag").getBoundingClientRect();
      const row = Math.floor((event.clientY - area.top) / area.height * picks.length);
      if (row in picks) pick(Number(box.closest(".choice").dataset.k), picks[row], true);
    });
  }
  // What is hidden has no width to be drawn for; it is drawn when it shows.
  function redraw() { for (const box of drawn) if (box.offsetParent) draw(box); }
  const watcher = new IntersectionObserver((entries) => {
    for (const entry of entries) if (entry.isIntersecting && !drawn.has(entry.target)) draw(entry.target);
  }, { rootMargin: "400px" });
  for (const box of all("[data-figure]")) watcher.observe(box);
  for (const button of all("[data-save]")) button.addEventListener("click", () => {
    const name = button.closest("[data-figure]").dataset.figure;
    const { data, layout } = parts(name, false);
    const { title, basis } = figures[name];
    const legend = data.length > 1 && layout.legend !== undefined;
    const top = legend ? 110 : 80;
    for (const trace of data) if (trace.colorbar) trace.showscale = true;
    Object.assign(layout, {
      showlegend: legend, width: 960, height: layout.height + top,
      margin: { ...layout.margin, t: layout.margin.t + top, l: 20, r: 20, b: 16 },
      title: { text: title, subtitle: { text: basis, font: { size: 11 } }, x: 0.02, xanchor: "left", y: 1 - 28 / (layout.height + top), yanchor: "middle", yref: "container" },
    });
    Plotly.downloadImage({ data, layout }, { format: button.dataset.save, filename: name, scale: 2, width: layout.width, height: layout.height });
  });

  // The number of modules, by the switch or by a click on a row of the table of all K.
  function choose(value) {
    for (const part of all("[data-k]")) part.hidden = Number(part.dataset.k) !== value;
    for (const button of all("[data-choose]")) button.setAttribute("aria-pressed", String(Number(button.dataset.choose) === value));
    for (const row of rowsOfK) row.classList.toggle("chosen", rowsOfK.length > 1 && Number(row.cells[0].dataset.v) === value);
    redraw();
  }
  const rowsOfK = all("[data-table=choices] tbody tr");
  for (const row of rowsOfK) row.addEventListener("click", () => changeTo(row.cells[0].dataset.v));
  for (const button of all("[data-choose]")) button.addEventListener("click", () => changeTo(button.dataset.choose));
  function changeTo(value) {
    choose(Number(value));
    note({ k: value });
  }

  // Tabs: the modules of a K, and the views of a module. One of each is shown.
  const tabsBeside = (tab) => all("[role=tab]", tab.parentElement);
  function select(tab) {
    for (const other of tabsBeside(tab)) {
      other.setAttribute("aria-selected", String(other === tab));
      other.tabIndex = other === tab ? 0 : -1;
      document.getElementById(other.getAttribute("aria-controls")).hidden = other !== tab;
    }
  }
  function pick(group, module, scroll) {
    const picker = document.querySelector(`[data-picker="${group}"]`);
    const tab = picker?.querySelector(`[data-module="${module}"]`);
    if (!tab) return;
    select(tab);
    tab.scrollIntoView({ block: "nearest", inline: "nearest" });
    note({ k: group, module });
    if (scroll) picker.scrollIntoView({ block: "start" });
  }
  for (const tab of all("[role=tab]")) {
    tab.addEventListener("click", () => {
      if (tab.dataset.module) pick(Number(tab.closest("[data-picker]").dataset.picker), Number(tab.dataset.module));
      // The next module opens with the same view.
      else for (const same of all(`[data-view="${tab.dataset.view}"]`)) select(same);
    });
    tab.addEventListener("keydown", (event) => {
      const tabs = tabsBeside(tab), at = tabs.indexOf(tab), last = tabs.length - 1;
      const down = at < last ? at + 1 : 0, up = at > 0 ? at - 1 : last;
      const next = tabs[{ ArrowDown: down, ArrowRight: down, ArrowUp: up, ArrowLeft: up, Home: 0, End: last }[event.key]];
      if (!next) return;
      event.preventDefault();
      next.click();
      next.focus();
    });
  }

  // The address remembers what is shown, so that a link opens the same.
  function note(state) { history.replaceState(null, "", "#" + new URLSearchParams(state)); }
  const state = new URLSearchParams(location.hash.slice(1));
  const opened = document.querySelector("[data-choose][aria-pressed=true]");
  if (opened) choose(Number(opened.dataset.choose));
  if (state.has("k") && document.querySelector(`[data-choose="${Number(state.get("k"))}"]`)) choose(Number(state.get("k")));
  if (state.has("k") && state.has("module")) pick(Number(state.get("k")), Number(state.get("module")), true);

  // Tables sort by a click on a heading.
  const valueOf = (cell) => cell.dataset.v === undefined ? cell.textContent : cell.dataset.v === "" ? null : Number(cell.dataset.v);
  const inOrder = (a, b) => a === null ? 1 : b === null ? -1 : typeof a === "number" ? a - b : a.localeCompare(b, undefined, { numeric: true });
  for (const button of all("th button")) button.addEventListener("click", () => {
    const head = button.parentElement;
    const body = head.closest("table").tBodies[0];
    const first = head.classList.contains("text") ? "ascending" : "descending";
    const now = head.getAttribute("aria-sort");
    const next = now === null ? first : now === "ascending" ? "descending" : "ascending";
    for (const other of head.parentElement.cells) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", next);
    const sign = next === "ascending" ? 1 : -1;
    const rows = [...body.rows].map((row) => [valueOf(row.cells[head.cellIndex]), row]);
    rows.sort(([a], [b]) => a === null || b === null ? inOrder(a, b) : sign * inOrder(a, b));
    body.append(...rows.map(([, row]) => row));
  });

  // Tables download as CSV. A text that a spreadsheet would run as a formula gets an apostrophe.
  function save(name, type, text) {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([text], { type }));
    link.download = name;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
  }
  const field = (text) => `"${(/^[=+\-@\t\r]/.test(text) ? "'" + text : text).replaceAll('"', '""')}"`;
  const csvCell = (cell) => cell.dataset.v === undefined ? field(cell.textContent) : cell.dataset.v;
  const csvCells = (cell, keys) => keys.map((_, place) => {
    const part = place ? all("[data-v]", cell)[place - 1] : cell;
    return part ? csvCell(part) : "";
  });
  for (const button of all("[data-csv]")) button.addEventListener("click", () => {
    const box = button.closest("[data-table]");
    const keys = all("th", box).map((head) => head.dataset.key.split(" "));
    const lines = [keys.flat().join(",")];
    for (const row of all("tbody tr", box)) lines.push([...row.cells].flatMap((cell, place) => csvCells(cell, keys[place])).join(","));
    save(`${box.dataset.table}.csv`, "text/csv", lines.join("\r\n") + "\r\n");
  });
  for (const button of all("[data-copy]")) button.addEventListener("click", async () => {
    const code = button.closest(".listing").querySelector("code");
    getSelection().selectAllChildren(code);
    try { await navigator.clipboard.writeText(code.textContent); button.textContent = "Copied"; } catch { /* the text stays selected */ }
  });

  // The contents show where the reader is.
  const links = new Map(all(".contents a").map((link) => [link.hash.slice(1), link]));
  const place = new IntersectionObserver((entries) => {
    for (const entry of entries) {
      if (!entry.isIntersecting) continue;
      for (const link of links.values()) link.removeAttribute("aria-current");
      links.get(entry.target.id)?.setAttribute("aria-current", "true");
    }
  }, { rootMargin: "-20% 0px -75% 0px" });
  for (const section of all("main > section")) place.observe(section);
})();
