(() => {
  const root = document.getElementById("views");
  if (!root) return;
  const { classes, images } = JSON.parse(document.getElementById("view-data").textContent);
  const [byClass, byName, byCount, bySize, order, byScore, scoreText, shown, more] =
    ["class", "name", "count", "size", "order", "score", "score-text", "shown", "more"]
      .map((id) => document.getElementById(`view-${id}`));
  const PAGE = 24, SVG = "http://www.w3.org/2000/svg";
  let limit = PAGE;
  for (const k of [...classes.keys()].sort((a, b) => classes[a].localeCompare(classes[b])))
    byClass.add(new Option(classes[k], k));

  const create = (name, attributes, text) => {
    const one = document.createElementNS(SVG, name);
    for (const [key, value] of Object.entries(attributes)) one.setAttribute(key, value);
    if (text) one.textContent = text;
    return one;
  };
  // A row: x, y, width, height, class, score, ignored, outline.
  const side = (row) => Math.sqrt(row[2] * row[3]);
  const labels = (image) => image.views[0].rows.filter((row) => byClass.value === "" || row[4] === Number(byClass.value));
  const matches = (image) => {
    const rows = labels(image);
    return image.name.toLowerCase().includes(byName.value.toLowerCase())
      && rows.length >= Math.max(Number(byCount.value), byClass.value === "" ? 0 : 1)
      && (bySize.value === "" || rows.some((row) => side(row) < Number(bySize.value)));
  };
  const smallest = (image) => Math.min(...labels(image).map(side));
  const panel = (image, view) => {
    const holder = document.createElement("div");
    const img = document.createElement("img");
    Object.assign(img, { alt: `${image.name}: ${view.title}`, loading: "lazy", src: view.source,
      width: view.width, height: view.height });
    const overlay = create("svg", { viewBox: `0 0 ${view.width} ${view.height}` });
    const scale = view.width / 200;
    for (const row of view.rows) {
      if (row[5] >= 0 && row[5] < Number(byScore.value)) continue;
      const faded = byClass.value !== "" && row[4] !== Number(byClass.value) ? " faded" : "";
      const look = { class: `shape ${row[6] ? "Ignored" : row[5] < 0 ? "object" : "Hit"}${faded}` };
      const shape = row[7] ? create("path", { ...look, d: row[7] })
        : create("rect", { ...look, x: row[0], y: row[1], width: row[2], height: row[3] });
      const score = row[5] < 0 ? "" : ` ${row[5].toFixed(2)}`;
      shape.append(create("title", {}, `${classes[row[4]]}${score}${row[6] ? " (ignored)" : ""}`));
      overlay.append(shape);
      if (!faded) overlay.append(create("text", { x: row[0] + 2, y: Math.max(row[1] + 9 * scale, 9 * scale),
        style: `font-size:${8 * scale}px` }, classes[row[4]] + score));
    }
    holder.append(img, overlay);
    return holder;
  };
  const card = (image) => {
    const article = document.createElement("article");
    const pair = document.createElement("div");
    pair.className = "pair";
    pair.style.gridTemplateColumns = `repeat(${image.views.length}, 1fr)`;
    pair.style.alignItems = "start";
    pair.append(...image.views.map((view) => panel(image, view)));
    const text = document.createElement("div");
    text.textContent = `${image.name} (${image.views.map((view) => view.title).join(" | ")})`;
    text.style.overflowWrap = "anywhere";
    article.append(pair, text);
    return article;
  };
  const show = () => {
    if (byScore) scoreText.textContent = Number(byScore.value).toFixed(2);
    const found = images.filter(matches);
    if (order.value === "most") found.sort((a, b) => labels(b).length - labels(a).length);
    if (order.value === "small") found.sort((a, b) => smallest(a) - smallest(b));
    root.replaceChildren(...found.slice(0, limit).map(card));
    shown.textContent = `${found.length} of ${images.length} images`;
    more.hidden = found.length <= limit;
  };
  for (const one of [byClass, byName, byCount, bySize, order, byScore])
    if (one) one.addEventListener("input", () => { limit = PAGE; show(); });
  more.addEventListener("click", () => { limit += PAGE; show(); });
  show();
})();
