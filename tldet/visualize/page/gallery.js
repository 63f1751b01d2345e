(() => {
  const root = document.querySelector(".gallery");
  if (!root) return;
  const { classes, images, detectors, kinds } = JSON.parse(document.getElementById("gallery-data").textContent);
  const [byClass, byError, count, more] =
    ["class", "error", "count", "more"].map((id) => document.getElementById(`filter-${id}`));
  const sliders = detectors.map((one, number) => document.getElementById(number ? `filter-score-${number}` : "filter-score"));
  const names = [...classes.keys()].sort((a, b) => classes[a].localeCompare(classes[b]));
  for (const k of names) byClass.add(new Option(classes[k], k));
  sliders.forEach((slider, number) => { slider.value = detectors[number].threshold; });
  const PAGE = 24, SVG = "http://www.w3.org/2000/svg", several = detectors.length > 1;
  let limit = PAGE;

  const create = (name, attributes, text) => {
    const one = document.createElementNS(SVG, name);
    for (const [key, value] of Object.entries(attributes)) one.setAttribute(key, value);
    if (text) one.textContent = text;
    return one;
  };
  // A row: x, y, width, height, class, score, kind, outline. image.found: scores of the matching detections of objects.
  const inClass = (row) => byClass.value === "" || row[4] === Number(byClass.value);
  const lost = (image, number, score) =>
    image.objects.filter((row, n) => row[6] !== "Ignored" && image.found[number][n] < score);
  const errors = (image, number, score) => {
    const false_ = image.detections[number].filter((row) => row[5] >= score && row[6] !== "Hit" && row[6] !== "Ignored");
    const kept = byError.value === "" ? false_ : false_.filter((row) => row[6] === byError.value);
    const missed = byError.value === "" || byError.value === "Miss" ? lost(image, number, score) : [];
    return { kept: kept.filter(inClass), missed: missed.filter(inClass) };
  };
  const panel = (image, label, rows) => {
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
    for (const [row, css, faded, text] of rows) {
      const box = { class: `shape ${css}${faded ? " faded" : ""}` };
      const shape = row[7] ? create("path", { ...box, d: row[7] })
        : create("rect", { ...box, x: row[0], y: row[1], width: row[2], height: row[3] });
      const kind = css === "Hit" ? "true positive" : css === "missed" ? "missed" : row[6];
      shape.append(create("title", {}, `${classes[row[4]]} ${row[5] < 0 ? "" : row[5].toFixed(2)} ${kind}`));
      overlay.append(shape);
      if (faded || !text) continue;
      const attributes = { x: row[0] + 2, y: Math.max(row[1] + 9 * scale, 9 * scale), style: `font-size:${8 * scale}px` };
      overlay.append(create("text", attributes, text));
    }
    holder.append(img, overlay);
    if (!several) return holder;
    const figure = document.createElement("figure"), caption = document.createElement("span");
    caption.textContent = label;
    figure.append(caption, holder);
    return figure;
  };
  const summary = (found) => {
    const counts = {};
    for (const row of found.kept) counts[row[6]] = (counts[row[6]] || 0) + 1;
    counts.Miss = found.missed.length;
    return kinds.filter((kind) => counts[kind]).map((kind) => `${counts[kind]} ${kind}`).join(", ");
  };
  const card = (image, scores, found) => {
    const article = document.createElement("article");
    const pair = document.createElement("div");
    pair.className = "pair";
    const chosen = new Set(found.flatMap((one) => [...one.kept, ...one.missed]));
    const missed = new Set(several ? [] : lost(image, 0, scores[0]));
    const filtered = byClass.value !== "" || byError.value !== "";
    const fades = (row) => (several ? filtered : chosen.size > 0) && !chosen.has(row);
    pair.append(panel(image, "ground truth", image.objects.map((row) =>
      [row, missed.has(row) ? "missed" : "object", !several && fades(row), classes[row[4]]])));
    detectors.forEach((one, number) => {
      const shown = image.detections[number].filter((row) => row[5] >= scores[number])
        .map((row) => [row, row[6], fades(row), `${classes[row[4]]} ${row[5].toFixed(2)}`]);
      const gone = several ? lost(image, number, scores[number]).map((row) => [row, "missed", fades(row), ""]) : [];
      pair.append(panel(image, one.name || "detections", [...gone, ...shown]));
    });
    const text = document.createElement("div");
    text.textContent = several
      ? `${image.name}: ${found.map((one, number) => `${detectors[number].name}: ${summary(one) || "no errors"}`).join("; ")}`
      : `${image.name}: ${summary(found[0])}`;
    text.style.overflowWrap = "anywhere";
    article.append(pair, text);
    return article;
  };
  const show = () => {
    const scores = sliders.map((slider) => Number(slider.value));
    sliders.forEach((slider) => { document.getElementById(`${slider.id}-text`).textContent = Number(slider.value).toFixed(2); });
    const all = byClass.value === "" && byError.value === "";
    const matching = images.map((image) => [image, scores.map((score, number) => errors(image, number, score))])
      .filter(([, found]) => all || found.some((one) => one.kept.length + one.missed.length));
    root.replaceChildren(...matching.slice(0, limit).map(([image, found]) => card(image, scores, found)));
    count.textContent = `${matching.length} of ${images.length} images`;
    more.hidden = matching.length <= limit;
  };
  for (const one of [byClass, byError, ...sliders]) one.addEventListener("input", () => { limit = PAGE; show(); });
  more.addEventListener("click", () => { limit += PAGE; show(); });
  show();
})();
