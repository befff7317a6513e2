/* What the pages can do beyond being read. Every page loads this file; where there is nothing to do it does nothing.
   Without it all is still there: each picture of a viewer, each row of the ledger. */
(() => {
  "use strict";

  /* make("label", {class: "x"}, "text", node, ...): an element with attributes and children. */
  const make = (tag, attributes = {}, ...children) => {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    element.append(...children);
    return element;
  };

  /* Patch, map and truth: stacked, and faded into each other by a slider; one patch at a time, chosen by its thumbnail. */
  const overlays = (viewer) => {
    const cases = [...viewer.querySelectorAll(".mito-case")];
    const layersOf = (one) => [...one.querySelectorAll("[data-name]")];
    const last = Math.max(...cases.map((one) => layersOf(one).length)) - 1;
    const slider = make("input", { type: "range", min: 0, max: last, step: 0.05, value: 0 });
    const shown = make("output", { "aria-live": "off" });
    const thumbs = make("div", { class: "mito-thumbs", role: "group", "aria-label": "Patches to choose from" });
    let current = 0;

    const draw = () => {
      cases.forEach((one, i) => { one.hidden = i !== current; });
      [...thumbs.children].forEach((button, i) => button.setAttribute("aria-pressed", i === current));
      const layers = layersOf(cases[current]);
      const at = Number(slider.value);
      layers.forEach((layer, i) => { layer.style.opacity = i === 0 ? 1 : Math.min(1, Math.max(0, at - i + 1)); });
      const below = layers[Math.floor(at)].dataset.name;
      const text = Number.isInteger(at) ? below : `${below}, fading into ${layers[Math.ceil(at)].dataset.name}`;
      shown.textContent = text;
      slider.setAttribute("aria-valuetext", text);
    };

    cases.forEach((one, i) => {
      const title = one.querySelector("p").textContent;
      const picture = make("img", { src: one.querySelector("img").src, alt: "", width: 64, height: 64 });
      const call = make("span", {}, title.split(",")[0], make("br"), title.split(", ").pop());
      const button = make("button", { type: "button", title, "aria-label": title }, picture, call);
      button.addEventListener("click", () => { current = i; draw(); });
      thumbs.append(button);
    });
    slider.addEventListener("input", draw);
    const ends = layersOf(cases[0]).map((layer) => make("span", {}, layer.dataset.name.split(" (")[0].split(" for ")[0]));
    const label = make("label", { class: "mito-slider" }, "Slide from tissue to map", slider);
    if (last > 1) label.firstChild.textContent += " to truth";
    viewer.prepend(thumbs);
    viewer.append(label, make("div", { class: "mito-ends", "aria-hidden": "true" }, ...ends), shown);
    viewer.classList.add("mito-live");
    draw();
  };

  /* Three proteins as red, green and blue: each picture is multiplied by its colour, and the three are added. */
  const mixer = (viewer) => {
    const pictures = new Map(
      [...viewer.querySelectorAll(".mito-channels [data-name]")].map((one) => [one.dataset.name, one.querySelector("img")]));
    const still = viewer.querySelector(".mito-mixed img");
    const [width, height] = ["width", "height"].map((side) => Number(still.getAttribute(side)));
    const canvas = make("canvas", { width, height, role: "img" });
    const scratch = make("canvas", { width, height });
    const caption = viewer.querySelector(".mito-mixed span");
    const start = viewer.dataset.start.split(" ");
    const colours = { red: "#f00", green: "#0f0", blue: "#00f" };

    const choices = Object.keys(colours).map((colour, i) => {
      const options = ["none", ...pictures.keys()].map((name) => make("option", { value: name }, name));
      const select = make("select", { "data-colour": colour }, ...options);
      select.value = start[i];
      select.addEventListener("change", () => draw());
      return select;
    });

    const draw = async () => {
      const wanted = choices.filter((select) => select.value !== "none");
      for (const select of wanted) pictures.get(select.value).loading = "eager"; // it may be far below the screen
      await Promise.all(wanted.map((select) => pictures.get(select.value).decode()));
      const mixed = canvas.getContext("2d");
      mixed.globalCompositeOperation = "source-over";
      mixed.fillStyle = "#000";
      mixed.fillRect(0, 0, width, height);
      mixed.globalCompositeOperation = "lighter";
      for (const select of wanted) {
        const one = scratch.getContext("2d");
        one.globalCompositeOperation = "source-over";
        one.drawImage(pictures.get(select.value), 0, 0, width, height);
        one.globalCompositeOperation = "multiply";
        one.fillStyle = colours[select.dataset.colour];
        one.fillRect(0, 0, width, height);
        mixed.drawImage(scratch, 0, 0);
      }
      const words = wanted.map((select) => `${select.value} ${select.dataset.colour}`).join(", ") || "nothing chosen";
      caption.textContent = words;
      canvas.setAttribute("aria-label", `${words}, in ${viewer.dataset.of}`);
    };

    const labels = choices.map((select) => make("label", { class: `mito-${select.dataset.colour}` }, select.dataset.colour, select));
    viewer.prepend(make("div", { class: "mito-choices", role: "group", "aria-label": "Proteins to mix" }, ...labels));
    still.replaceWith(canvas);
    viewer.classList.add("mito-live");
    draw();
  };

  /* A table that is sorted by a column when its heading is pressed, and the other way round when pressed again. */
  const sortable = (table) => {
    const [body, headings] = [table.tBodies[0], [...table.tHead.rows[0].cells]];
    const compare = new Intl.Collator("en", { numeric: true }).compare;
    const order = (a, b) => {
      if (a === "" || b === "") return (a === "") - (b === ""); // what is not known comes last
      return Number.isNaN(Number(a)) || Number.isNaN(Number(b)) ? compare(a, b) : Number(a) - Number(b);
    };
    headings.forEach((heading, column) => {
      if (column === 0) return; // the pictures
      const button = make("button", { type: "button" }, heading.textContent);
      button.addEventListener("click", () => {
        const down = heading.getAttribute("aria-sort") === "ascending";
        const sign = down ? -1 : 1;
        const value = (row) => row.cells[column].dataset.sort;
        const rows = [...body.rows].sort((a, b) => {
          const missing = value(a) === "" || value(b) === "";
          return (missing ? 1 : sign) * order(value(a), value(b));
        });
        headings.forEach((other) => other.removeAttribute("aria-sort"));
        heading.setAttribute("aria-sort", down ? "descending" : "ascending");
        body.append(...rows);
      });
      heading.replaceChildren(button);
    });
  };

  /* The ledger: rows that hold all the words typed and the verdict chosen. */
  const ledger = (table) => {
    const rows = [...table.tBodies[0].rows];
    const verdict = (row) => row.cells[row.cells.length - 1].textContent.split(":")[0].trim();
    const words = make("input", { type: "search", autocomplete: "off", placeholder: "VGG16 recall" });
    const verdicts = ["any", ...new Set(rows.map(verdict))].map((name) => make("option", { value: name }, name));
    const choice = make("select", {}, ...verdicts);
    const count = make("output", { "aria-live": "polite" });

    const filter = () => {
      const wanted = words.value.toLowerCase().split(/\s+/).filter(Boolean);
      let left = 0;
      for (const row of rows) {
        const text = row.textContent.toLowerCase();
        const fits = wanted.every((word) => text.includes(word)) && ["any", verdict(row)].includes(choice.value);
        row.hidden = !fits;
        left += fits;
      }
      count.textContent = `${left} of ${rows.length} numbers`;
    };

    words.addEventListener("input", filter);
    choice.addEventListener("change", filter);
    const form = make("form", { class: "mito-filter", role: "search", "aria-label": "Filter the ledger" },
      make("label", {}, "Words ", words), make("label", {}, "Verdict ", choice), count);
    form.addEventListener("submit", (event) => event.preventDefault());
    (table.closest(".pst-scrollable-table-container") || table).before(form);
    filter();
  };

  /* One switch for the code of a chapter, whose cells are closed. */
  const codeSwitch = (article) => {
    const cells = [...article.querySelectorAll("details.hide.above-input")];
    const title = article.querySelector("h1");
    if (cells.length < 2 || !title) return;
    const button = make("button", { type: "button", class: "mito-code", "aria-pressed": "false" }, "Show all code");
    button.addEventListener("click", () => {
      const open = button.getAttribute("aria-pressed") === "false";
      for (const cell of cells) cell.open = open;
      button.setAttribute("aria-pressed", open);
    });
    title.after(button);
  };

  /* Search reads the pages it found, for a glimpse of each; no browser lets a page on disk do that. */
  if (location.protocol === "file:") DOCUMENTATION_OPTIONS.SHOW_SEARCH_SUMMARY = false;

  const start = () => {
    document.querySelectorAll('[data-viewer="overlays"]').forEach(overlays);
    document.querySelectorAll('[data-viewer="mixer"]').forEach(mixer);
    document.querySelectorAll(".bd-article").forEach(codeSwitch);
    document.querySelectorAll("table.ledger").forEach(ledger);
    document.querySelectorAll("table.mito-sortable").forEach(sortable);
  };
  if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", start);
  else start();
})();
