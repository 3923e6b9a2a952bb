// The widgets: each replaces what its page shows without scripts. Plain elements, so that
// a keyboard and a screen reader know them already.
(() => {
  const el = (tag, attributes = {}, ...children) => {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) {
      if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
      else if (value !== false) element.setAttribute(name, value === true ? "" : value);
    }
    element.append(...children);
    return element;
  };
  const field = (label, control, output = "") =>
    el("label", { class: "w-field" }, el("span", {}, label), control, output);
  const select = (options, change) => el("select", { onchange: change },
    ...options.map((name) => el("option", { value: name }, name)));
  const range = (attributes, input) => el("input", { type: "range", ...attributes, oninput: input });
  const percent = (x, digits = 1) => `${(100 * x).toFixed(digits)}\u00a0%`;

  // A token as one can see it: blanks visible, bytes that are no text in hexadecimal.
  const show = (bytes) => {
    const codes = Uint8Array.from(bytes, (c) => c.charCodeAt(0));
    try {
      return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(codes)
        .replaceAll(" ", "␣").replaceAll("\n", "⏎").replaceAll("\t", "⇥");
    } catch {
      return Array.from(codes, (c) => c.toString(16).padStart(2, "0").toUpperCase()).join(" ");
    }
  };
  const token = (text, i, extra = "") => el("span", { class: `w-token w-c${i % 4} ${extra}` }, text);

  const widgets = {};

  // Step through merges, forward and back.
  widgets.watch = (root, data) => {
    let states, step = 0;
    const pieces = el("div", { class: "w-text" });
    const pairs = el("tbody");
    const made = el("p", { class: "w-made" });
    const status = el("p", { class: "w-status", role: "status" });
    const slider = range({ min: 0, step: 1 }, () => go(Number(slider.value)));
    const button = (text, label, target) =>
      el("button", { type: "button", "aria-label": label, onclick: () => go(target()) }, text);
    const back = button("◀ Back", "One merge back", () => step - 1);
    const forward = button("Merge ▶", "Next merge", () => step + 1);
    const first = button("Start", "Back to bytes", () => 0);
    const last = button("End", "All merges", () => states.length - 1);
    const chooser = select(Object.keys(data), () => open(chooser.value));

    const open = (title) => {
      states = data[title].states;
      slider.max = states.length - 1;
      go(0);
    };
    const go = (target) => {
      step = Math.max(0, Math.min(states.length - 1, target));
      slider.value = step;
      first.disabled = back.disabled = step === 0;
      last.disabled = forward.disabled = step === states.length - 1;
      const state = states[step];
      const [left, right, count] = step < states.length - 1 ? state.pairs[0] : [];
      pieces.replaceChildren(...state.pieces.map((piece) => el("span", { class: "w-piece" },
        ...piece.map((bytes, i) => {
          const next = left === bytes && right === piece[i + 1] ? "w-left" :
            right === bytes && left === piece[i - 1] ? "w-right" : "";
          return token(show(bytes), 0, `${step && bytes === state.made ? "w-new" : ""} ${next}`);
        }))));
      pairs.replaceChildren(...state.pairs.map(([a, b, n], i) => el("tr",
        { class: i === 0 && count ? "w-best" : "" },
        el("td", {}, token(show(a), 0), " ", token(show(b), 0)),
        el("td", {}, String(n)),
        el("td", { class: "w-bar-cell" }, el("span",
          { class: "w-bar", style: `width:${100 * n / states[0].pairs[0][2]}%` })))));
      made.replaceChildren("Learned so far: ", ...states.slice(1, step + 1).flatMap((s, i) =>
        [token(show(s.made), 0, i === step - 1 ? "w-new" : ""), " "]));
      if (step === 0) made.append("nothing, there are 256 bytes.");
      const tokens = state.pieces.reduce((sum, piece) => sum + piece.length, 0);
      const bytes = states[0].pieces.reduce((sum, piece) => sum + piece.length, 0);
      status.textContent = `Merge ${step} of ${states.length - 1}: ${bytes} bytes are ` +
        `${tokens} tokens, ${(bytes / tokens).toFixed(2)} bytes each. ` +
        (count ? `Next: ${show(left)} and ${show(right)}, ${count} times side by side.` : "The end.");
    };
    root.replaceChildren(
      el("div", { class: "w-row" }, field("Text", chooser), field("Merges", slider)),
      el("div", { class: "w-row" }, first, back, forward, last),
      status,
      el("div", { class: "w-columns" }, pieces,
        el("table", { class: "w-table" },
          el("caption", {}, "The most frequent pairs"),
          el("thead", {}, el("tr", {}, ...["pair", "count", ""].map((h) =>
            h ? el("th", { scope: "col" }, h) : el("td")))), pairs)),
      made);
    open(Object.keys(data)[0]);
  };

  // One sentence in many tokenizers.
  widgets.tokenize = (root, data) => {
    const ranks = minillm.ranks(data.merges), names = minillm.tokens(data.merges);
    const words = new Set(data.words);
    const encoder = new TextEncoder();
    const bytesOf = (text) => String.fromCharCode(...encoder.encode(text));
    const kinds = [
      ["Characters", 1114112, (text) => Array.from(text, bytesOf)],
      ["Bytes", 256, (text) => Array.from(bytesOf(text))],
      ["Words of the fairy tales", data.words.length + 1,
        (text) => minillm.pretokenize(text).map((w) => (words.has(w) ? bytesOf(w) : null))],
      ...data.sizes.map((size) => ["BPE", size,
        (text) => minillm.encode(text, ranks, size).map((id) => names[id])]),
    ];
    const input = el("textarea", { rows: 3, maxlength: 2000, spellcheck: "false", oninput: () => draw() });
    input.value = data.sentence;
    const rows = kinds.map(([name, size]) => ({
      tokens: el("div", { class: "w-text" }),
      count: el("p", { class: "w-count" }),
      title: el("h2", { class: "w-title" }, `${name}, ${size.toLocaleString("en")} in the vocabulary`),
    }));
    const draw = () => {
      const n = encoder.encode(input.value).length;
      kinds.forEach(([, , tokenize], k) => {
        const tokens = tokenize(input.value), unknown = tokens.filter((t) => t === null).length;
        rows[k].tokens.replaceChildren(...tokens.map((bytes, i) =>
          bytes === null ? token("unknown", 0, "w-unknown") : token(show(bytes), i)));
        rows[k].count.textContent = `${tokens.length} tokens` +
          (tokens.length ? `, ${(n / tokens.length).toFixed(2)} bytes each` : "") +
          (unknown ? `; ${unknown} lost, there is no way back` : "");
      });
    };
    root.replaceChildren(field("Your text", input),
      ...rows.map(({ title, count, tokens }) => el("section", {}, title, count, tokens)));
    draw();
  };

  // A slider's number may not be what it means; a screen reader says this instead.
  const says = (slider, output, text) => {
    output.textContent = text;
    slider.setAttribute("aria-valuetext", text);
  };

  // Where the FLOPs go.
  const short = (x, unit) => {
    const steps = [["", 1], ["k", 1e3], ["M", 1e6], ["G", 1e9], ["T", 1e12], ["P", 1e15], ["E", 1e18]];
    const [prefix, size] = steps.filter(([, s]) => x >= s).at(-1) ?? steps[0];
    return `${Number((x / size).toPrecision(3))} ${prefix}${unit}`;
  };
  const count = (x) => {
    const steps = [["", 1], [" thousand", 1e3], [" million", 1e6], [" billion", 1e9]];
    const [name, size] = steps.filter(([, t]) => x >= t).at(-1);
    return `${Number((x / size).toPrecision(3))}${name}`;
  };
  const duration = (s) => {
    const steps = [["µs", 1e-6], ["ms", 1e-3], ["seconds", 1], ["minutes", 60], ["hours", 3600],
      ["days", 86400], ["years", 365.25 * 86400]];
    const [name, size] = steps.filter(([, t]) => s >= t).at(-1) ?? steps[0];
    return `${Number((s / size).toPrecision(3)).toLocaleString("en")} ${name}`;
  };
  widgets.flops = (root, data) => {
    const labels = { projections: "Projections: queries, keys, values, output",
      attention: "Attention: scores, mixed values", ffn: "Feed-forward network", head: "Head: logits" };
    const model = select(Object.keys(data.presets), () => {
      context.value = Math.log2(data.presets[model.value].context_length);
      draw();
    });
    const context = range({ min: 5, max: 20, step: 1 }, () => draw());
    const contextOut = el("output");
    const batch = range({ min: 0, max: 10, step: 1, value: 0 }, () => draw());
    const batchOut = el("output");
    const chip = select(Object.keys(data.chips), () => draw());
    const used = range({ min: 5, max: 100, step: 5, value: 40 }, () => draw());
    const usedOut = el("output");
    const bars = el("tbody"), facts = el("dl", { class: "w-facts" });
    const status = el("p", { class: "w-status", role: "status" });
    const draw = () => {
      const c = data.presets[model.value], seq = 2 ** context.value, size = 2 ** batch.value;
      const peak = data.chips[chip.value], share = used.value / 100;
      says(context, contextOut, `${seq.toLocaleString("en")} tokens` +
        (seq > c.context_length ? " (more than it was made for)" : ""));
      says(batch, batchOut, `${size} sequence${size > 1 ? "s" : ""}`);
      says(used, usedOut, `${used.value} % of its peak`);
      const flops = minillm.forwardFlops(c, size, seq), n = minillm.paramCount(c).total;
      const train = minillm.trainingMemory(c, size, seq), run = minillm.inferenceMemory(c, size, seq);
      const parts = Object.keys(labels);
      bars.replaceChildren(...parts.map((part, i) => el("tr", {},
        el("th", { scope: "row" }, labels[part]),
        el("td", {}, percent(flops[part] / flops.total)),
        el("td", { class: "w-bar-cell" }, el("span",
          { class: `w-bar w-b${i}`, style: `width:${100 * flops[part] / flops.total}%` })))));
      const most = parts.reduce((a, b) => (flops[a] > flops[b] ? a : b));
      status.textContent = `${count(n)} parameters. Most of the work, ` +
        `${percent(flops[most] / flops.total, 0)}: ${labels[most].split(":")[0].toLowerCase()}.`;
      const fits = (bytes) => bytes <= peak.memory ? "fits one chip"
        : `needs ${Math.ceil(bytes / peak.memory).toLocaleString("en")} chips to hold it`;
      const whole = 6 * n * 20 * n;
      const rows = [
        ["Forward pass", `${short(flops.total, "FLOPs")}, ` +
          `${duration(minillm.seconds(flops.total, peak, share))} on one chip`],
        ["Step of training", `${short(3 * flops.total, "FLOPs")}, ` +
          `${duration(minillm.seconds(3 * flops.total, peak, share))} on one chip`],
        ["Memory to train", `${short(train.total, "B")}, of which ` +
          `${percent(train.activations / train.total, 0)} activations; ${fits(train.total)}`],
        ["Memory to run", `${short(run.total, "B")}, of which ` +
          `${percent(run.kv_cache / run.total, 0)} KV cache; ${fits(run.total)}`],
        ["Whole training, 20 tokens for each parameter", `${short(whole, "FLOPs")} by 6ND, ` +
          `${duration(minillm.seconds(whole, peak, share))} on one chip`],
      ];
      facts.replaceChildren(...rows.flatMap(([name, text]) => [el("dt", {}, name), el("dd", {}, text)]));
    };
    root.replaceChildren(
      el("div", { class: "w-row" }, field("Model", model), field("Context", context, contextOut),
        field("Batch", batch, batchOut)),
      el("div", { class: "w-row" }, field("Chip", chip), field("Used", used, usedOut)),
      status,
      el("table", { class: "w-table w-wide" },
        el("caption", {}, "Shares of the forward pass"), bars), facts);
    model.value = "gpt2";
    model.dispatchEvent(new Event("change"));
  };

  // Temperature, top-k, top-p.
  widgets.sampling = (root, data) => {
    const vocab = data.tokens.length;
    const prompt = select(Object.keys(data.prompts), () => draw());
    const t = range({ min: 0.1, max: 3, step: 0.05, value: 1 }, () => draw());
    const k = range({ min: 0, max: 11, step: 1, value: 11 }, () => draw());
    const p = range({ min: 0.05, max: 1, step: 0.01, value: 1 }, () => draw());
    const outs = [el("output"), el("output"), el("output")];
    const bars = el("tbody"), status = el("p", { class: "w-status", role: "status" });
    const drawn = el("p", { class: "w-made", role: "status" }, "Nothing drawn yet.");
    let now;
    const entropy = (ps) => -ps.reduce((sum, x) => sum + (x > 0 ? x * Math.log2(x) : 0), 0);
    const draw = () => {
      const logits = data.prompts[prompt.value];
      const settings = { temperature: Number(t.value), topK: Math.min(2 ** k.value, vocab), topP: Number(p.value) };
      const plain = minillm.distribution(logits, {});
      now = minillm.distribution(logits, settings);
      says(t, outs[0], settings.temperature.toFixed(2));
      says(k, outs[1], settings.topK >= vocab ? "all" : `${settings.topK} tokens`);
      says(p, outs[2], settings.topP === 1 ? "all" : settings.topP.toFixed(2));
      const kept = now.probabilities.filter((x) => x > 0).length;
      status.textContent = `${kept} of ${vocab} tokens can be drawn; ` +
        `${entropy(now.probabilities).toFixed(2)} bits of surprise on average, ` +
        `${entropy(plain.probabilities).toFixed(2)} before.`;
      const best = now.order[0];
      const largest = Math.max(plain.probabilities[best], now.probabilities[best]);
      bars.replaceChildren(...now.order.slice(0, 14).map((id) => {
        const [a, b] = [plain.probabilities[id], now.probabilities[id]];
        return el("tr", { class: b > 0 ? "" : "w-gone" },
          el("th", { scope: "row" }, token(show(data.tokens[id]), 0)),
          el("td", {}, percent(a)), el("td", {}, b > 0 ? percent(b) : "ruled out"),
          el("td", { class: "w-bar-cell" },
            el("span", { class: "w-bar w-thin", style: `width:${100 * a / largest}%` }),
            el("span", { class: "w-bar w-b0", style: `width:${100 * b / largest}%` })));
      }));
      drawn.textContent = "Nothing drawn yet.";
    };
    const sample = () => {
      const one = () => {
        let x = Math.random();
        for (const id of now.order) if ((x -= now.probabilities[id]) < 0) return id;
        return now.order[0];
      };
      drawn.replaceChildren("Drawn: ", ...Array.from({ length: 20 }, () =>
        [token(show(data.tokens[one()]), 0), " "]).flat());
    };
    const reset = () => {
      [t.value, k.value, p.value] = [1, 11, 1];
      draw();
    };
    root.replaceChildren(
      el("div", { class: "w-row" }, field("The text so far", prompt)),
      el("div", { class: "w-row" }, field("Temperature", t, outs[0]), field("Top-k", k, outs[1]), field("Top-p", p, outs[2])),
      el("div", { class: "w-row" },
        el("button", { type: "button", onclick: sample }, "Draw twenty"),
        el("button", { type: "button", onclick: reset }, "As the model says")),
      status,
      el("table", { class: "w-table w-wide" },
        el("caption", {}, `What comes next, after ${data.steps} steps of training: the likeliest tokens`),
        el("thead", {}, el("tr", {}, ...["token", "the model", "now"].map((h) =>
          el("th", { scope: "col" }, h)), el("td"))), bars),
      drawn);
    draw();
  };

  // A small graph, forward and backward, step by step.
  widgets.gradients = (root, data) => {
    const svg = (tag, attributes = {}, ...children) => {
      const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
      for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
      element.append(...children);
      return element;
    };
    const digits = (x) => x.toFixed(3).replace("-", "−");
    const [high, tall, wide] = [88, 58, 92];
    let graph, step = 0;
    const drawing = svg("svg", { class: "w-graph", role: "img" });
    const status = el("p", { class: "w-status", role: "status" });
    const slider = range({ min: 0, step: 1 }, () => go(Number(slider.value)));
    const button = (text, label, target) =>
      el("button", { type: "button", "aria-label": label, onclick: () => go(target()) }, text);
    const turn = () => graph.steps.findIndex((s) => s.says.startsWith("Backward"));
    const first = button("Start", "Back to the start", () => 0);
    const back = button("◀ Back", "One step back", () => step - 1);
    const forward = button("Next ▶", "Next step", () => step + 1);
    const half = button("Loss", "To the end of the forward pass", () => turn() - 1);
    const last = button("End", "All steps", () => graph.steps.length - 1);
    const chooser = select(Object.keys(data), () => open(chooser.value));
    const open = (title) => {
      graph = data[title];
      slider.max = graph.steps.length - 1;
      const rows = Math.max(...graph.nodes.map((n) => n.row));
      drawing.setAttribute("viewBox", `0 0 360 ${rows * high + tall + 4}`);
      go(0);
    };
    const go = (target) => {
      step = Math.max(0, Math.min(graph.steps.length - 1, target));
      slider.value = step;
      first.disabled = back.disabled = step === 0;
      last.disabled = forward.disabled = step === graph.steps.length - 1;
      const now = graph.steps[step], passed = new Map(now.passed);
      const seen = new Map();
      const lines = [], labels = [];
      graph.edges.forEach(([from, to], i) => {
        const [a, b] = [graph.nodes[from], graph.nodes[to]];
        // Two edges between the same numbers stand side by side.
        const twins = graph.edges.filter(([x, y]) => x === from && y === to).length;
        const n = seen.get(`${from} ${to}`) ?? 0;
        seen.set(`${from} ${to}`, n + 1);
        const shift = (n - (twins - 1) / 2) * 44;
        const [x1, y1, x2, y2] = [a.x + shift / 2, a.row * high + tall, b.x + shift, b.row * high + 2];
        const used = now.grads[0] === undefined ? "" : passed.has(i) ? "w-passed" :
          now.passed.length === 0 && now.now.includes(to) && now.grads[to] === null ? "w-used" : "";
        lines.push(svg("line", { x1, y1, x2, y2, class: `w-edge ${used}` }));
        if (passed.has(i)) labels.push(svg("text", { x: (x1 + x2) / 2, y: (y1 + y2) / 2 + 4, class: "w-share" },
          digits(passed.get(i))));
      });
      const boxes = graph.nodes.map((node, i) => {
        const y = node.row * high + 2, [value, grad] = [now.values[i], now.grads[i]];
        const group = svg("g", { class: `w-number ${now.now.includes(i) ? "w-now" : ""}` },
          svg("rect", { x: node.x - wide / 2, y, width: wide, height: tall - 2, rx: 4 }),
          svg("text", { x: node.x, y: y + 16, class: "w-name" },
            node.made ? `${node.name} = ${node.made}` : node.name));
        if (value !== null) group.append(svg("text", { x: node.x, y: y + 33 }, digits(value)));
        if (grad !== null) group.append(svg("text", { x: node.x, y: y + 50, class: "w-grad" }, digits(grad)));
        return group;
      });
      drawing.replaceChildren(...lines, ...boxes, ...labels);
      drawing.setAttribute("aria-label", `A graph of ${graph.nodes.length} numbers. ${now.says}`);
      status.textContent = `Step ${step} of ${graph.steps.length - 1}. ${now.says}`;
    };
    root.replaceChildren(
      el("div", { class: "w-row" }, field("Graph", chooser), field("Steps", slider)),
      el("div", { class: "w-row" }, first, back, forward, half, last),
      status, drawing,
      el("p", { class: "w-count" }, "In each box: what it is made from, its value, and ",
        el("span", { class: "w-grad" }, "the slope of the loss in it"), ", as far as they are known."));
    open(Object.keys(data)[0]);
  };

  for (const root of document.querySelectorAll("[data-widget]")) {
    const name = root.dataset.widget;
    widgets[name](root, minillm.data[name]);
    root.dataset.ready = "";
  }
})();
