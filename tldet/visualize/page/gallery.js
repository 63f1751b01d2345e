(() => {
  const root = document.querySelector(".gallery");
  if (!root) return;
  const { classes, images, threshold, kinds } = JSON.parse(document.getElementById("gallery-data").textContent);
  const [byClass, byError, byScore, shownScore, count, more] =
    ["class", "error", "score", "score-text", "count", "more"].map((id) => document.getElementById(`filter-${id}`));
  const names = [...classes.keys()].sort((a, b) => classes[a].localeCompare(classes[b]));
  for (const k of names) byClass.add(new Option(classes[k], k));
  byScore.value = threshold;
  const PAGE = 24, SVG = "http://www.w3.org/2000/svg";
  let limit = PAGE;

  const create = (name, attributes, text) => {
    const one = document.createElementNS(SVG, name);
    for (const [key, value] of Object.entries(attributes)) one.setAttribute(key, value);
    if (text) one.textContent = text;
    return one;
  };
  // A row: x, y, width, height, class, score, kind, outline. The score of an object is that of its matching detection.
  const inClass = (row) => byClass.value === "" || row[4] === Number(byClass.value);
  const missed = (row, score) => row[6] !== "Ignored" && row[5] < score;
  const errors = (image, score) => {
    const found = image.detections.filter((row) => row[5] >= score && row[6] !== "Hit" && row[6] !== "Ignored");
    const lost = image.objects.filter((row) => missed(row, score));
    const kept = byError.value === "" ? found : found.filter((row) => row[6] === byError.value);
    return [...kept, ...(byError.value === "" || byError.value === "Miss" ? lost : [])].filter(inClass);
  };
  const panel = (image, rows, label, css, chosen) => {
    const holder = document.createElement("div");
    const img = document.createElement("img");
    img.alt = `${image.name}: ${label}`;
    img.loading = "lazy";
    img.width = image.width;
    img.height = image.height;
    img.src = image.source || "data:image/svg+xml," + encodeURIComponent(
      `<svg xmlns="${SVG}" width="${image.width}" height="${image.height}"></svg>`);
    const overlay = create("svg", { viewBox: `0 0 ${image.width} ${image.height}` });
    const scale = image.width / 200;
    for (const row of rows) {
      const faded = chosen.size && !chosen.has(row) ? " faded" : "";
      const box = { class: `shape ${css(row)}${faded}` };
      const shape = row[7] ? create("path", { ...box, d: row[7] })
        : create("rect", { ...box, x: row[0], y: row[1], width: row[2], height: row[3] });
      const kind = row[6] === "Hit" ? "true positive" : row[6];
      shape.append(create("title", {}, `${classes[row[4]]} ${row[5] < 0 ? "" : row[5].toFixed(2)} ${kind}`));
      overlay.append(shape);
      if (!faded) {
        const score = label === "detections" ? ` ${row[5].toFixed(2)}` : "";
        const attributes = { x: row[0] + 2, y: Math.max(row[1] + 9 * scale, 9 * scale), style: `font-size:${8 * scale}px` };
        overlay.append(create("text", attributes, classes[row[4]] + score));
      }
    }
    holder.append(img, overlay);
    return holder;
  };
  const card = (image, score, chosen) => {
    const article = document.createElement("article");
    const pair = document.createElement("div");
    pair.className = "pair";
    const found = image.detections.filter((row) => row[5] >= score);
    pair.append(
      panel(image, image.objects, "ground truth", (row) => (missed(row, score) ? "missed" : "object"), chosen),
      panel(image, found, "detections", (row) => row[6], chosen));
    const counts = {};
    for (const row of chosen) counts[missed(row, score) && image.objects.includes(row) ? "Miss" : row[6]] =
      (counts[missed(row, score) && image.objects.includes(row) ? "Miss" : row[6]] || 0) + 1;
    const text = document.createElement("div");
    text.textContent = `${image.name}: ` + kinds.filter((kind) => counts[kind]).map((kind) => `${counts[kind]} ${kind}`).join(", ");
    text.style.overflowWrap = "anywhere";
    article.append(pair, text);
    return article;
  };
  const show = () => {
    const score = Number(byScore.value);
    shownScore.textContent = score.toFixed(2);
    const matching = images.map((image) => [image, new Set(errors(image, score))]).filter(([, rows]) => rows.size);
    root.replaceChildren(...matching.slice(0, limit).map(([image, rows]) => card(image, score, rows)));
    count.textContent = `${matching.length} of ${images.length} images`;
    more.hidden = matching.length <= limit;
  };
  for (const one of [byClass, byError, byScore]) one.addEventListener("input", () => { limit = PAGE; show(); });
  more.addEventListener("click", () => { limit += PAGE; show(); });
  show();
})();
