// The forward pass of a network in plain JavaScript: what `cnnlib.widgets.live` exports, run in a page, a worker or Node.
//
// `engine()` closes over nothing outside itself, so that its text can start a worker. A graph is a list of nodes in forward
// order, node 0 the picture; node i makes value i, of `shape` (batch of 1 included), from the values that `from` names.

export function engine() {
  const range = (count) => Array.from({ length: count }, (_, i) => i);
  const size = (shape) => shape.reduce((product, length) => product * length, 1);
  const stridesOf = (shape) => shape.map((_, axis) => size(shape.slice(axis + 1)));
  const axisOf = (axis, shape) => (axis < 0 ? axis + shape.length : axis);

  // --- weights: a file of safetensors in float32, float16 or int8 with one scale for each output channel ---

  // All 65,536 numbers of half precision. A float32 has the same parts: its exponent begins 112 lower, its fraction is 13 bits longer.
  function everyHalf() {
    const found = new Float32Array(1 << 16);
    const bits = new Uint32Array(found.buffer);
    for (let i = 0; i < 1 << 15; i++) {
      const [exponent, fraction] = [i >> 10, i & 1023];
      if (exponent) bits[i] = ((exponent === 31 ? 255 : exponent + 112) << 23) | (fraction << 13);
      else found[i] = fraction * 2 ** -24;
      bits[i + (1 << 15)] = bits[i] | (1 << 31);
    }
    return found;
  }
  let halves = null; // made when a file has some

  function lookUp(places, table, values) {
    for (let i = 0; i < places.length; i++) values[i] = table[places[i]];
  }
  function multiply(rows, scales, values) {
    const row = rows.length / scales.length;
    for (let r = 0, i = 0; r < scales.length; r++) for (const end = i + row; i < end; i++) values[i] = rows[i] * scales[r];
  }

  function readWeights(buffer, place = (length) => new Float32Array(length)) {
    const length = Number(new DataView(buffer).getBigUint64(0, true));
    const header = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 8, length)));
    const raw = ({ dtype, data_offsets: [start, end] }) => {
      const bytes = buffer.slice(8 + length + start, 8 + length + end);
      return new { F32: Float32Array, F16: Uint16Array, I8: Int8Array }[dtype](bytes);
    };
    const weights = {};
    for (const [name, entry] of Object.entries(header)) {
      if (name === "__metadata__" || name.endsWith(".scale")) continue;
      const stored = raw(entry);
      const values = (weights[name] = place(stored.length));
      if (entry.dtype === "F32") values.set(stored);
      else if (entry.dtype === "F16") lookUp(stored, (halves ??= everyHalf()), values);
      else multiply(stored, raw(header[`${name}.scale`]), values);
    }
    return weights;
  }

  // --- the room that holds all values and weights, and the four functions that do nearly all of the work in it ---

  // Their program in WebAssembly, which takes four numbers at once and needs no time to become quick. Places, steps and taps are in bytes.
  // sumsOfFour, sumsOfOne: out[r][q] += sum over k of w[r][k] * x[taps[k] + q] for four rows r or one, and `count` places q, eight at a time;
  // largest: the same with the maximum for the sum, and without weights; clamp: to[q] = from[q], but within two bounds.
  function program() {
    const [i32, f32, v128] = [0x7f, 0x7d, 0x7b];
    const [add, subtract, isBelow, isAbove] = [0x6a, 0x6b, 0x48, 0x4a];
    const [get, set, number] = [0x20, 0x21, 0x41].map((code) => (n) => [code, n]);
    const [load, loadOneFourTimes, store] = [0, 9, 11].map((code) => (ahead = 0) => [0xfd, code, 0, ahead]);
    const [plus, times, smaller, larger] = [0xe4, 0xe6, 0xe8, 0xe9].map((code) => [0xfd, code, 1]); // of four numbers each
    const zero = [0xfd, 12, Array(16).fill(0)];
    const move = (local, by) => [get(local), by, add, set(local)];
    const loop = (...body) => [0x03, 0x40, body, 0x0d, 0, 0x0b]; // again while the last value is true
    const fewer = (count, step) => [get(count), number(step), subtract, 0x22, count, number(0), isAbove]; // true while some are left

    function overTaps(rows, isMax) {
      const [w, wStep, taps, end, x, out, outStep, count, k, place, weight, left, right] = range(13);
      const [sums0, sums1, ws, outs] = range(4).map((i) => range(rows).map((r) => 13 + i * rows + r));
      const halves = [[left, 0, sums0], [right, 16, sums1]]; // of the eight places
      const begin = (places, first, step) => places.map((one, r) => [r ? [get(one - 1), get(step), add] : get(first), set(one)]);
      return [Array(8).fill(i32), [[2, i32], [3 + 2 * rows, v128], [2 * rows, i32]], [
        begin(outs, out, outStep),
        loop(
          begin(ws, w, wStep),
          outs.map((one, r) => halves.map(([, ahead, sums]) => [isMax ? [get(one), load(ahead)] : zero, set(sums[r])])),
          get(taps), set(k),
          loop(
            get(x), get(k), 0x28, 2, 0, add, set(place), // 0x28 loads the tap at k
            halves.map(([value, ahead]) => [get(place), load(ahead), set(value)]),
            ws.map((one, r) => [
              isMax ? [] : [get(one), loadOneFourTimes(), set(weight), move(one, number(4))],
              halves.map(([value, , sums]) => [get(sums[r]), get(value), isMax ? larger : [get(weight), times, plus], set(sums[r])]),
            ]),
            move(k, number(4)), get(k), get(end), isBelow,
          ),
          outs.map((one, r) => [halves.map(([, ahead, sums]) => [get(one), get(sums[r]), isMax ? [] : [get(one), load(ahead), plus], store(ahead)]), move(one, number(32))]),
          move(x, number(32)), fewer(count, 8),
        )]];
    }
    function clamp() {
      const [from, to, count, low, high] = range(5);
      const bound = (local, which) => [get(local), 0xfd, 0x13, which]; // 0x13: one number four times
      return [[i32, i32, i32, f32, f32], [], loop(get(to), get(from), load(), bound(low, larger), bound(high, smaller), store(),
        move(from, number(16)), move(to, number(16)), fewer(count, 4))];
    }
    const functions = { sumsOfFour: overTaps(4), sumsOfOne: overTaps(1), largest: overTaps(1, true), clamp: clamp() };
    const all = Object.values(functions);
    const bytes = (n) => (n < 128 ? [n] : [(n & 127) | 128, ...bytes(n >> 7)]);
    const sized = (...parts) => [bytes(parts.flat(Infinity).length), parts];
    const section = (id, items) => [id, sized(items.length, items)];
    return Uint8Array.from([
      [0, 97, 115, 109, 1, 0, 0, 0], // "asm", version 1; then what each takes, the memory that is given, which takes what, names, bodies
      section(1, all.map(([takes]) => [0x60, takes.length, takes, 0])),
      section(2, [[0, 0, 2, 0, 0]]),
      section(3, all.map((_, i) => i)),
      section(7, Object.keys(functions).map((name, i) => [name.length, [...name].map((letter) => letter.charCodeAt(0)), 0, i])),
      section(10, all.map(([, locals, body]) => sized(locals.length, locals, body, 0x0b))),
    ].flat(Infinity));
  }

  let [memory, room, kernels] = [];
  try {
    memory = new WebAssembly.Memory({ initial: 1 });
    kernels = new WebAssembly.Instance(new WebAssembly.Module(program()), { "": { "": memory } }).exports;
  } catch { // an older browser, or one that may not: the same in plain JavaScript
    memory = { buffer: new ArrayBuffer(0), grow(pages) { this.buffer = new ArrayBuffer(this.buffer.byteLength + 65536 * pages); } };
    const overTaps = (rows, isMax) => (w, wStep, taps, end, x, out, outStep, count) => {
      const [all, at, line] = [room, new Int32Array(room.buffer, taps, (end - taps) / 4), new Float64Array(count)];
      for (let r = 0; r < rows; r++) {
        line.fill(isMax ? -Infinity : 0);
        for (let k = 0; k < at.length; k++) {
          const [from, weight] = [(x + at[k]) / 4, all[(w + r * wStep) / 4 + k]];
          if (isMax) for (let q = 0; q < count; q++) line[q] = Math.max(line[q], all[from + q]);
          else for (let q = 0; q < count; q++) line[q] += weight * all[from + q];
        }
        for (let q = 0, to = (out + r * outStep) / 4; q < count; q++, to++) all[to] = isMax ? Math.max(line[q], all[to]) : line[q] + all[to];
      }
    };
    kernels = { sumsOfFour: overTaps(4), sumsOfOne: overTaps(1), largest: overTaps(1, true), clamp(from, to, count, low, high) {
      for (let i = 0; i < count; i++) room[to / 4 + i] = Math.min(high, Math.max(low, room[from / 4 + i]));
    } };
  }

  // Parts of the room of these lengths, from place `start` on; behind each are places to spare, since sums come by eights.
  const spaced = (length) => (length + 11) & ~3;
  function reserve(lengths, start) {
    const places = lengths.map((length) => (start += spaced(length)) - spaced(length));
    const missing = 4 * start - memory.buffer.byteLength;
    if (missing > 0) memory.grow(Math.ceil(missing / 65536));
    if (room?.buffer !== memory.buffer) room = new Float32Array(memory.buffer);
    return lengths.map((length, i) => room.subarray(places[i], places[i] + length));
  }
  let scratch = 0; // from here on a layer keeps what it needs on its way

  // to[c][y][x] = from[c][y][x], with a step of its own along each axis.
  function copy(from, to, [C, Y, X], [fromC, fromY, fromX], [toC, toY, toX], fromAt = 0, toAt = 0) {
    for (let c = 0; c < C; c++) for (let y = 0; y < Y; y++) {
      for (let x = 0, p = fromAt + c * fromC + y * fromY, q = toAt + c * toC + y * toY; x < X; x++, p += fromX, q += toX) to[q] = from[p];
    }
  }

  // --- convolutions, matrices, pooling: sums, or maxima, over taps ---

  const MOST = 128; // terms of a sum that are added up before they join the others

  // out[r][q] = bias[r] + sum over maps and taps of weight[r][map][tap] * x[map][tap + q], or, where there is no weight, the largest of them.
  // Maps of x are `step` apart; every `rows` rows read `inputs` maps of their own. The list of all taps is made in `list`.
  function product(weight, bias, [rows, inputs], taps, step, list, x, out, columns) {
    const depth = inputs * taps.length;
    const count = out.length / columns;
    const all = new Int32Array(room.buffer, list.byteOffset, depth);
    for (let k = 0, t = 0; k < inputs; k++) for (const tap of taps) all[t++] = 4 * (k * step + tap);
    for (let r = 0; r < count; r++) out.fill(weight ? bias?.[r] ?? 0 : -Infinity, r * columns, (r + 1) * columns);
    for (let k = 0; k < depth; k += MOST) for (let r = 0; r < count;) {
      const high = weight && rows - (r % rows) > 3 ? 4 : 1;
      const kernel = !weight ? kernels.largest : high > 1 ? kernels.sumsOfFour : kernels.sumsOfOne;
      kernel(weight ? weight.byteOffset + 4 * (r * depth + k) : 0, 4 * depth, all.byteOffset + 4 * k, all.byteOffset + 4 * Math.min(depth, k + MOST),
        x.byteOffset + 4 * step * inputs * Math.floor(r / rows), out.byteOffset + 4 * r * columns, 4 * columns, columns);
      r += high;
    }
  }

  // The taps of a window: each reads one plane, shifted. Under a stride of s a map becomes s x s planes, with its padding around.
  function planesOf({ kernel: [KH, KW], stride: [SH, SW], padding: [PH, PW], dilation: [DH, DW] = [1, 1], shape: [, C, OH, OW] }, [, D, H, W]) {
    const [down, across] = [Math.min(SH, (KH - 1) * DH + 1), Math.min(SW, (KW - 1) * DW + 1)]; // planes that are read
    const [high, wide] = [OH + Math.floor(((KH - 1) * DH) / SH), OW + Math.floor(((KW - 1) * DW) / SW)];
    const [plane, step] = [high * wide, high * wide * down * across];
    const isSame = KH * KW * SH * SW === 1 && plane === H * W;
    const columns = ((OH - 1) * wide + OW + 7) & ~7; // from the first output to the last
    const taps = [];
    for (let y = 0; y < KH * DH; y += DH) for (let x = 0; x < KW * DW; x += DW) {
      taps.push(((y % SH) * across + (x % SW)) * plane + Math.floor(y / SH) * wide + Math.floor(x / SW));
    }
    function spread(map, planes, fill) {
      planes.fill(fill);
      const inside = (i, pad, step, length, most) => [Math.max(0, Math.ceil((pad - i) / step)), Math.min(most, Math.floor((length - 1 + pad - i) / step) + 1)];
      for (let i = 0; i < down; i++) for (let j = 0; j < across; j++) {
        const [[y, yEnd], [x, xEnd]] = [inside(i, PH, SH, H, high), inside(j, PW, SW, W, wide)];
        copy(map, planes, [D, yEnd - y, xEnd - x], [H * W, SH * W, SW], [step, wide, 1],
          (y * SH + i - PH) * W + x * SW + j - PW, (i * across + j) * plane + y * wide + x);
      }
      return planes;
    }
    return { isSame, columns, wide, step, taps, spread, lengths: [2 * D * taps.length, isSame ? 0 : D * step, C * columns] };
  }

  function windows(node, [x], weights, [shape], out) { // convolution, and pooling of maps one by one
    const [, C, OH, OW] = node.shape;
    const { isSame, columns, wide, step, taps, spread, lengths } = planesOf(node, shape);
    const [list, planes, sums] = reserve(lengths, scratch);
    const [isMax, isMean] = ["maxpool", "avgpool"].map((op) => node.op === op);
    const weight = isMax ? null : isMean ? list.subarray(taps.length).fill(1) : weights[node.weight];
    const found = isSame && columns === OH * OW ? out : sums;
    product(weight, weights[node.bias], [C, shape[1]].map((count) => count / (node.groups ?? C)), taps, step, list,
      isSame ? x : spread(x, planes, isMax ? -Infinity : 0), found, columns);
    if (found !== out) copy(sums, out, [C, OH, OW], [columns, wide, 1], [OH * OW, OW, 1]);
    if (!isMean) return;
    const [high, across] = [0, 1].map((axis) => range(node.shape[2 + axis]).map((i) => window(node, axis, i, shape[2 + axis])[3]));
    for (let c = 0, at = 0; c < C; c++) for (const down of high) for (const one of across) out[at++] /= node.divisor ?? down * one;
  }

  // What it reads lies row by row, and is turned: a column for each row.
  function linear(node, [x], weights, [shape], out) {
    const [rows, depth] = [node.shape.at(-1), shape.at(-1)];
    const columns = x.length / depth;
    const [list, turned, sums] = reserve(lengthsOf(node), scratch);
    copy(x, turned, [1, depth, columns], [0, 1, depth], [0, columns, 1]);
    product(weights[node.weight], weights[node.bias], [rows, depth], [0], columns, list, turned, sums, sums.length / rows);
    copy(sums, out, [1, rows, columns], [0, sums.length / rows, 1], [0, 1, rows]);
  }

  // How much of the scratch a node takes.
  function lengthsOf(node) {
    if (OPERATIONS[node.op] === windows) return planesOf(node, shapeOf(node.from[0])).lengths;
    if (node.op !== "linear") return [2, 2];
    const [shape, rows] = [shapeOf(node.from[0]), node.shape.at(-1)];
    return [shape.at(-1), size(shape), rows * ((size(shape) / shape.at(-1) + 7) & ~7)];
  }

  // --- windows, values one by one, and places ---

  // First and last place, and step, of the window of output `i` along one axis of an input of `length`; and how many values
  // an average divides by.
  function window(node, axis, i, length) {
    if (node.op === "adaptive") {
      const out = node.shape[2 + axis];
      const [first, end] = [Math.floor((i * length) / out), Math.ceil(((i + 1) * length) / out)];
      return [first, end - 1, 1, end - first];
    }
    const [kernel, step, padding] = [node.kernel[axis], node.dilation?.[axis] ?? 1, node.padding[axis]];
    const start = i * node.stride[axis] - padding;
    const first = start < 0 ? start + Math.ceil(-start / step) * step : start;
    const last = Math.min(start + (kernel - 1) * step, length - 1);
    const counted = Math.min(start + kernel, length + padding) - start;
    return [first, last, step, node.pad ? counted : last - first + 1];
  }

  function adaptive(node, [x], weights, [[, C, H, W]], out) {
    const [, , OH, OW] = node.shape;
    for (let c = 0, at = 0; c < C; c++) for (let row = 0; row < OH; row++) for (let column = 0; column < OW; column++) {
      const [[y0, y1, , high], [x0, x1, , wide]] = [window(node, 0, row, H), window(node, 1, column, W)];
      let sum = 0;
      for (let y = y0; y <= y1; y++) for (let p = (c * H + y) * W + x0; p <= (c * H + y) * W + x1; p++) sum += x[p];
      out[at++] = sum / (high * wide);
    }
  }

  function erf(z) { // Abramowitz and Stegun, 7.1.26: error below 1.5e-7
    const t = 1 / (1 + 0.3275911 * Math.abs(z));
    const tail = t * (0.254829592 + t * (-0.284496736 + t * (1.421413741 + t * (-1.453152027 + t * 1.061405429))));
    return Math.sign(z) * (1 - tail * Math.exp(-z * z));
  }
  const sigmoid = (z) => 1 / (1 + Math.exp(-z));
  const clamp = (z, low, high) => Math.min(high, Math.max(low, z));
  const ACTIVATIONS = {
    relu: (z) => (z > 0 ? z : 0), hardtanh: clamp, silu: (z) => z * sigmoid(z), sigmoid, tanh: Math.tanh,
    hardsigmoid: (z) => clamp(z + 3, 0, 6) / 6, hardswish: (z) => (z * clamp(z + 3, 0, 6)) / 6,
    gelu: (z) => 0.5 * z * (1 + erf(z * Math.SQRT1_2)), leaky_relu: (z, slope) => (z > 0 ? z : slope * z),
  };
  const BINARY = { add: (a, b) => a + b, sub: (a, b) => a - b, mul: (a, b) => a * b, div: (a, b) => a / b };

  // Places in a value, for every element of an array of `shape` in which a step along axis i moves `strides[i]` in the value.
  const places = (shape, strides, offset = 0) => gathered(shape.map((length, axis) => range(length).map((i) => i * strides[axis])), offset);
  function gathered(steps, offset = 0) { // the same for any steps along each axis
    let found = Int32Array.of(offset);
    for (const axis of steps) {
      const next = new Int32Array(found.length * axis.length);
      for (let i = 0, q = 0; i < found.length; i++) for (let j = 0; j < axis.length; j++) next[q++] = found[i] + axis[j];
      found = next;
    }
    return found;
  }
  function broadcast(shape, to) {
    const strides = stridesOf(shape);
    return to.map((_, axis) => {
      const own = axis - to.length + shape.length;
      return own < 0 || shape[own] === 1 ? 0 : strides[own];
    });
  }
  function reduced(node, shape) { // places of what each output is the mean or norm of, one output after another
    const axes = node.axes.map((axis) => axisOf(axis, shape));
    const order = [...range(shape.length).filter((axis) => !axes.includes(axis)), ...axes];
    const strides = stridesOf(shape);
    return [places(order.map((axis) => shape[axis]), order.map((axis) => strides[axis])), size(axes.map((axis) => shape[axis]))];
  }
  function reduce(node, [x], weights, [shape], out) { // the mean, or the root of the sum of squares
    const [found, count] = reduced(node, shape);
    const isNorm = node.op === "norm";
    for (let i = 0; i < out.length; i++) {
      let sum = 0;
      for (let j = i * count; j < (i + 1) * count; j++) sum += isNorm ? x[found[j]] ** 2 : x[found[j]];
      out[i] = isNorm ? Math.sqrt(sum) : sum / count;
    }
    return out;
  }
  function moved(node, shape) { // permute, slice and gather: places only
    const strides = stridesOf(shape);
    if (node.op === "gather") return gathered(shape.map((length, axis) => (node.index[axis] ?? range(length)).map((i) => i * strides[axis])));
    if (node.op === "permute") return places(node.shape, node.order.map((axis) => strides[axis]));
    const axis = axisOf(node.axis, shape);
    return places(node.shape, strides.map((step, i) => (i === axis ? step * node.step : step)), node.start * strides[axis]);
  }
  const move = (node, [x], weights, [shape], out) => moved(node, shape).forEach((place, i) => (out[i] = x[place]));
  const perChannel = (shape) => size(shape.slice(2));
  function lrnScale(node, x, [, C, H, W], c, place) { // k + alpha times the mean of squares over neighbouring channels
    let sum = 0;
    const first = c - (node.size >> 1);
    for (let n = Math.max(0, first); n < Math.min(C, first + node.size); n++) sum += x[n * H * W + place] ** 2;
    return node.k + (node.alpha * sum) / node.size;
  }
  function statistics(x, at, length, eps) {
    let [mean, square] = [0, 0];
    for (let i = at; i < at + length; i++) mean += x[i] / length;
    for (let i = at; i < at + length; i++) square += (x[i] - mean) ** 2 / length;
    return [mean, Math.sqrt(square + eps)];
  }
  function softmax(scores) {
    const largest = scores.reduce((a, b) => Math.max(a, b), -Infinity);
    const powers = Float64Array.from(scores, (score) => Math.exp(score - largest));
    const total = powers.reduce((a, b) => a + b, 0);
    return powers.map((power) => power / total);
  }

  const OPERATIONS = {
    conv: windows, maxpool: windows, avgpool: windows, adaptive, linear, reshape: (node, [x], weights, shapes, out) => out.set(x),
    act(node, [x], weights, shapes, out) {
      const f = ACTIVATIONS[node.kind];
      const [a, b] = node.settings ?? [];
      if (node.kind === "relu") kernels.clamp(x.byteOffset, out.byteOffset, x.length, 0, Infinity);
      else if (node.kind === "hardtanh") kernels.clamp(x.byteOffset, out.byteOffset, x.length, a, b);
      else for (let i = 0; i < x.length; i++) out[i] = f(x[i], a, b);
    },
    affine(node, [x], weights, [shape], out) {
      const [scale, shift, area] = [weights[node.weight], weights[node.bias], perChannel(shape)];
      for (let i = 0, c = 0; i < x.length; c++) for (const end = i + area; i < end; i++) out[i] = x[i] * scale[c] + shift[c];
    },
    binary(node, [x, y], weights, [one, other], out) {
      const f = BINARY[node.kind];
      const right = node.constant ? weights[node.constant] : y;
      const alpha = node.alpha ?? 1;
      const shape = node.constant ? node.constant_shape : other;
      if (node.scalar != null) for (let i = 0; i < x.length; i++) out[i] = f(x[i], node.scalar * alpha);
      else if (y && String(shape) === String(one) && (node.kind === "add" || node.kind === "sub")) { // two taps, from the beginning of the room
        const [list, both] = reserve([2, 2], scratch);
        both.set([1, node.kind === "add" ? alpha : -alpha]);
        product(both, null, [1, 1], [x, y].map((part) => part.byteOffset / 4), 0, list, room, out, out.length);
      } else if (String(shape) === String(one)) for (let i = 0; i < x.length; i++) out[i] = f(x[i], right[i] * alpha);
      else {
        const [p, q] = [places(node.shape, broadcast(one, node.shape)), places(node.shape, broadcast(shape, node.shape))];
        for (let i = 0; i < out.length; i++) out[i] = f(x[p[i]], right[q[i]] * alpha);
      }
    },
    cat(node, values, weights, shapes, out) {
      const axis = axisOf(node.axis, node.shape);
      const row = size(node.shape.slice(axis));
      let at = 0;
      values.forEach((x, i) => {
        const length = size(shapes[i].slice(axis));
        for (let p = 0, q = at; p < x.length; p += length, q += row) out.set(x.subarray(p, p + length), q);
        at += length;
      });
    },
    permute: move, gather: move,
    slice(node, [x], weights, [shape], out) {
      const axis = axisOf(node.axis, shape);
      const [before, inner] = [size(shape.slice(0, axis)), size(shape.slice(axis + 1))];
      copy(x, out, [before, node.shape[axis], inner], [shape[axis] * inner, node.step * inner, 1], [node.shape[axis] * inner, inner, 1], node.start * inner);
    },
    pad(node, [x], weights, [shape], out) {
      const [counts, from, to] = [shape, stridesOf(shape), stridesOf(node.shape)].map((all) => [1, 1, ...all].slice(-3));
      out.fill(node.fill);
      copy(x, out, counts, from, to, 0, node.before.reduce((sum, count, axis) => sum + count * stridesOf(node.shape)[axis], 0));
    },
    mean: reduce, norm: reduce,
    layer_norm(node, [x], weights, [shape], out) {
      const [scale, shift, length] = [weights[node.weight], weights[node.bias], shape.at(-1)];
      for (let at = 0; at < x.length; at += length) {
        const [mean, deviation] = statistics(x, at, length, node.eps);
        for (let i = 0; i < length; i++) out[at + i] = ((x[at + i] - mean) / deviation) * (scale?.[i] ?? 1) + (shift?.[i] ?? 0);
      }
    },
    lrn(node, [x], weights, [shape], out) {
      const area = perChannel(shape);
      for (let i = 0; i < x.length; i++) out[i] = x[i] / lrnScale(node, x, shape, Math.floor(i / area), i % area) ** node.beta;
    },
    softmax(node, [x], weights, shapes, out) {
      const length = node.shape.at(-1);
      for (let at = 0; at < x.length; at += length) out.set(softmax(x.subarray(at, at + length)), at);
    },
  };

  // An image of any size as `height` x `width`: each value is a mean weighted by a triangle as wide as what it stands for, as PyTorch's
  // interpolate(mode="bilinear", antialias=True) has it. `data` and the result are colour by colour.
  function resize(data, channels, fromHeight, fromWidth, height, width) {
    return resizeAlong(resizeAlong(data, channels, fromHeight, fromWidth, height), channels * height, fromWidth, 1, width);
  }
  function resizeAlong(data, outer, from, inner, to) { // the middle one of three axes
    const out = new Float32Array(outer * to * inner);
    const scale = from / to;
    const support = Math.max(scale, 1);
    for (let i = 0; i < to; i++) {
      const centre = scale * (i + 0.5);
      const first = Math.max(0, Math.floor(centre - support + 0.5));
      const last = Math.max(first + 1, Math.min(from, Math.floor(centre + support + 0.5)));
      const parts = range(last - first).map((k) => Math.max(0, 1 - Math.abs((first + k - centre + 0.5) / support)));
      const total = parts.reduce((a, b) => a + b, 0);
      for (let o = 0; o < outer; o++) for (let k = 0; k < parts.length; k++) addScaled(out, (o * to + i) * inner, data, (o * from + first + k) * inner, inner, parts[k] / total);
    }
    return out;
  }
  function addScaled(out, at, data, from, count, weight) {
    for (let i = 0; i < count; i++) out[at + i] += weight * data[from + i];
  }

  // The same of a square of bytes as a canvas gives them, red, green, blue and opacity of one place after another.
  function resizeBytes(bytes, side, channels, height, width) {
    const small = resizeAlong(resizeAlong(bytes, 1, side, 4 * side, height), height, side, 4, width);
    return Float32Array.from({ length: channels * height * width }, (_, i) => small[4 * (i % (height * width)) + Math.floor(i / (height * width))] / 255);
  }

  // --- one network ---

  let [graph, weights, values, zeros, spare, seen] = [null, {}, [], null, null, null];
  const shapeOf = (id) => graph.nodes[id].shape;
  const inputsOf = (node) => node.from.map((id) => values[id]);

  function load(newGraph, buffer) {
    for (const { op, layer } of newGraph.nodes.slice(1)) if (!OPERATIONS[op]) throw new Error(`${layer}: this page's engine lacks ${op}`);
    [graph, seen] = [newGraph, null];
    const lengths = graph.nodes.map(({ shape }) => size(shape));
    const largest = Math.max(...lengths);
    const most = Math.max(...graph.nodes.map((node) => lengthsOf(node).reduce((sum, length) => sum + spaced(length), 0)));
    let held, last; // a file has no more numbers than bytes
    [zeros, spare, held, last, ...values] = reserve([largest, largest, buffer.byteLength, most, ...lengths], 0);
    scratch = last.byteOffset / 4;
    zeros.fill(0);
    weights = readWeights(buffer, (length) => {
      const part = held.subarray(0, length);
      held = held.subarray(length);
      return part;
    });
  }

  // All values for the pixels (colour by colour, 0 to 1). `off` lists what is switched off: "7:3", channel 3 of node 7, or "7<1", the
  // second input of node 7: zeros stand in its place.
  function forward(pixels, off = []) {
    const { mean, std, nodes } = graph;
    const area = pixels.length / mean.length;
    for (let i = 0; i < pixels.length; i++) values[0][i] = (pixels[i] - mean[Math.floor(i / area)]) / std[Math.floor(i / area)];
    const cut = new Set(off);
    const silent = {};
    for (const [, id, channel] of off.map((one) => /^(\d+):(\d+)$/.exec(one) ?? [])) if (id) (silent[id] ??= []).push(Number(channel));
    for (let id = 1; id < nodes.length; id++) {
      const node = nodes[id];
      const inputs = node.from.map((source, place) => (cut.has(`${id}<${place}`) ? zeros.subarray(0, values[source].length) : values[source]));
      OPERATIONS[node.op](node, inputs, weights, node.from.map(shapeOf), values[id]);
      const length = perChannel(node.shape);
      for (const channel of silent[id] ?? []) values[id].fill(0, channel * length, (channel + 1) * length);
    }
    return softmax(values.at(-1));
  }
  const see = (bytes, side) => void (seen = resizeBytes(bytes, side, ...shapeOf(0).slice(1))); // a canvas; it is looked at where no pixels are given
  const run = (pixels, off) => [...forward(pixels ?? seen, off)];

  // How element `at` of value `id` was made: result = bias + sum of value times weight over `terms`, or, by `rule`, the "max" of
  // the terms, or an activation of the only one ("act").
  function explain(id, at) {
    const node = graph.nodes[id];
    if (!id) return { rule: "input", bias: 0, terms: [], result: values[0][at] };
    const [source] = node.from;
    const [x] = inputsOf(node);
    const shape = shapeOf(source);
    const [C, H, W] = [1, 2, 3].map((axis) => shape[axis] ?? 1);
    const area = perChannel(node.shape);
    const channel = Math.floor(at / area);
    const [row, column] = [Math.floor((at % area) / (node.shape[3] ?? 1)), at % (node.shape[3] ?? 1)];
    const term = (place, weight, from = source) => ({ from, at: place, value: values[from][place], weight });
    const answer = (terms, more) => ({ rule: "sum", bias: 0, ...more, terms, result: values[id][at] });
    switch (node.op) {
      case "conv": {
        const { groups, kernel: [KH, KW], stride, padding, dilation } = node;
        const inputs = C / groups;
        const first = Math.floor(channel / (node.shape[1] / groups)) * inputs;
        const terms = [];
        for (let k = 0; k < inputs; k++) for (let i = 0; i < KH; i++) for (let j = 0; j < KW; j++) {
          const [y, z] = [row * stride[0] - padding[0] + i * dilation[0], column * stride[1] - padding[1] + j * dilation[1]];
          const weight = weights[node.weight][((channel * inputs + k) * KH + i) * KW + j];
          const outside = y < 0 || y >= H || z < 0 || z >= W;
          terms.push(outside ? { from: source, at: -1, value: 0, weight } : term(((first + k) * H + y) * W + z, weight));
        }
        return answer(terms, { bias: weights[node.bias]?.[channel] ?? 0, kernel: [KH, KW], channels: range(inputs).map((k) => first + k) });
      }
      case "linear": {
        const rows = node.shape.at(-1);
        const [depth, r] = [weights[node.weight].length / rows, at % rows];
        const start = Math.floor(at / rows) * depth;
        return answer(range(depth).map((k) => term(start + k, weights[node.weight][r * depth + k])), { bias: weights[node.bias]?.[r] ?? 0 });
      }
      case "maxpool": case "avgpool": case "adaptive": {
        const [[y0, y1, yStep, high], [x0, x1, xStep, wide]] = [window(node, 0, row, H), window(node, 1, column, W)];
        const terms = [];
        for (let y = y0; y <= y1; y += yStep) for (let z = x0; z <= x1; z += xStep) {
          terms.push(term((channel * H + y) * W + z, node.op === "maxpool" ? 1 : 1 / (node.divisor ?? high * wide)));
        }
        return answer(terms, { rule: node.op === "maxpool" ? "max" : "sum" });
      }
      case "act": return answer([term(at, 1)], { rule: "act", kind: node.kind });
      case "affine": return answer([term(at, weights[node.weight][channel])], { bias: weights[node.bias][channel] });
      case "layer_norm": {
        const length = shape.at(-1);
        const [mean, deviation] = statistics(x, at - (at % length), length, node.eps);
        const weight = (weights[node.weight]?.[at % length] ?? 1) / deviation;
        return answer([term(at, weight)], { bias: (weights[node.bias]?.[at % length] ?? 0) - mean * weight });
      }
      case "lrn": return answer([term(at, lrnScale(node, x, shape, channel, at % area) ** -node.beta)]);
      case "mean": case "norm": { // a norm is the sum of its values times what each is of it
        const [found, count] = reduced(node, shape);
        return answer([...found.slice(at * count, (at + 1) * count)].map((place) =>
          term(place, node.op === "mean" ? 1 / count : x[place] / (values[id][at] || 1))));
      }
      case "permute": case "slice": case "gather": return answer([term(moved(node, shape)[at], 1)]);
      case "binary": {
        const place = (shape) => places(node.shape, broadcast(shape, node.shape))[at];
        const own = place(shape);
        const other = node.scalar ?? (node.constant ? weights[node.constant][place(node.constant_shape)] : values[node.from[1]][place(shapeOf(node.from[1]))]);
        const alpha = other * (node.alpha ?? 1);
        if (node.kind === "mul") return answer([term(own, other)]);
        if (node.kind === "div") return answer([term(own, 1 / other)]);
        const sign = (node.kind === "sub" ? -1 : 1) * (node.alpha ?? 1);
        if (node.from.length < 2) return answer([term(own, 1)], { bias: node.kind === "sub" ? -alpha : alpha });
        return answer([term(own, 1), term(place(shapeOf(node.from[1])), sign, node.from[1])]);
      }
      case "cat": {
        const axis = axisOf(node.axis, node.shape);
        const [row, inner] = [size(node.shape.slice(axis)), size(node.shape.slice(axis + 1))];
        let left = Math.floor((at % row) / inner);
        for (const from of node.from) {
          const length = shapeOf(from)[axis];
          if (left < length) return answer([term((Math.floor(at / row) * length + left) * inner + (at % inner), 1, from)]);
          left -= length;
        }
      }
      // falls through: an element of no input
      case "pad": {
        const inner = stridesOf(shape);
        const index = stridesOf(node.shape).map((step, axis) => (Math.floor(at / step) % node.shape[axis]) - node.before[axis]);
        if (index.some((i, axis) => i < 0 || i >= shape[axis])) return answer([], { bias: Number(node.fill) });
        return answer([term(index.reduce((sum, i, axis) => sum + i * inner[axis], 0), 1)]);
      }
      case "softmax": return answer([...x].map((_, i) => term(i, 1)), { rule: "softmax" });
      default: return answer([term(at, 1)]);
    }
  }

  // What channel `k` of the input adds to a map of a convolution, everywhere: the sum of these and the bias is the map.
  function part(id, channel, k) {
    const node = graph.nodes[id];
    const [source] = node.from;
    const [, C, H, W] = shapeOf(source);
    const [inputs, area] = [C / node.groups, node.kernel[0] * node.kernel[1]];
    const at = (channel * inputs + (k % inputs)) * area;
    const out = spare.subarray(0, perChannel(node.shape));
    windows({ ...node, groups: 1, weight: "w", bias: "", shape: [1, 1, ...node.shape.slice(2)] }, [values[source].subarray(k * H * W, (k + 1) * H * W)],
      { w: weights[node.weight].subarray(at, at + area) }, [[1, 1, H, W]], out);
    return out.slice();
  }

  // First and last row and column of the picture from which element `at` of value `id` was made, padding included.
  function field(id, at) {
    const spans = []; // for each value: [first, last] along every axis
    const join = (to, found) => (spans[to] = spans[to] ? spans[to].map(([a, b], axis) => [Math.min(a, found[axis][0]), Math.max(b, found[axis][1])]) : found);
    join(id, stridesOf(shapeOf(id)).map((step, axis) => [Math.floor(at / step) % shapeOf(id)[axis], Math.floor(at / step) % shapeOf(id)[axis]]));
    for (let i = id; i > 0; i--) {
      if (!spans[i]) continue;
      const [node, own] = [graph.nodes[i], spans[i]];
      let before = 0;
      for (const from of node.from) {
        const shape = shapeOf(from);
        const every = shape.map((length) => [0, length - 1]);
        const part = (change) => every.map((all, axis) => change(own[axis], axis, all));
        let found = every;
        if (["conv", "maxpool", "avgpool"].includes(node.op)) {
          found = part(([first, last], axis, all) => {
            if (axis < 2) return node.op === "conv" || axis < 1 ? all : [first, last];
            const [kernel, stride, padding, step] = ["kernel", "stride", "padding", "dilation"].map((name) => node[name]?.[axis - 2] ?? 1);
            return [first * stride - padding, last * stride - padding + step * (kernel - 1)];
          });
        } else if (node.op === "adaptive") {
          found = part((span, axis, all) => (axis < 2 ? span : [window(node, axis - 2, span[0], shape[axis])[0], window(node, axis - 2, span[1], shape[axis])[1]]));
        } else if (node.op === "linear" || node.op === "layer_norm" || node.op === "softmax") {
          found = part((span, axis, all) => (axis === shape.length - 1 ? all : span));
        } else if (node.op === "permute") {
          node.order.forEach((axis, to) => (found[axis] = own[to]));
        } else if (node.op === "slice") {
          found = part(([first, last], axis) => (axis === axisOf(node.axis, shape)
            ? [node.start + first * node.step, node.start + last * node.step] : [first, last]));
        } else if (node.op === "gather") {
          found = part(([first, last], axis) => {
            const all = node.index[axis]?.slice(first, last + 1);
            return all ? [Math.min(...all), Math.max(...all)] : [first, last];
          });
        } else if (node.op === "pad") {
          found = part(([first, last], axis) => [first - node.before[axis], last - node.before[axis]]);
        } else if (node.op === "cat") {
          const axis = axisOf(node.axis, shape);
          const length = shape[axis];
          const [first, last] = [Math.max(own[axis][0], before), Math.min(own[axis][1], before + length - 1)];
          before += length;
          if (first > last) continue;
          found = part((span, i) => (i === axis ? [first - before + length, last - before + length] : span));
        } else if (node.op === "mean" || node.op === "norm") {
          const axes = node.axes.map((axis) => axisOf(axis, shape));
          const kept = range(shape.length).filter((axis) => !axes.includes(axis));
          kept.forEach((axis, i) => (found[axis] = own[node.shape.length === shape.length ? axis : i]));
        } else if (node.op === "reshape") { // what keeps the rows and columns keeps their spans
          if (shape.length > 3 && String(shape.slice(-2)) === String(node.shape.slice(-2))) found.splice(-2, 2, ...own.slice(-2));
        } else if (node.op === "lrn") {
          found = part((span, axis, all) => (axis === 1 ? all : span));
        } else { // value by value; what is broadcast is asked for once
          const shift = node.shape.length - shape.length;
          found = every.map((all, axis) => (shape[axis] === 1 ? all : own[axis + shift]));
        }
        join(from, found);
      }
    }
    return (spans[0] ?? shapeOf(0).map((length) => [0, length - 1])).slice(-2);
  }

  // Gradient of the score of a class with respect to value `stop`; every path from there to the scores must be of the operations below.
  function gradient(target, stop) {
    const grads = [];
    grads[graph.nodes.length - 1] = new Float64Array(values.at(-1).length);
    grads.at(-1)[target] = 1;
    for (let id = graph.nodes.length - 1; id > stop; id--) {
      if (!grads[id]) continue;
      const [node, g] = [graph.nodes[id], grads[id]];
      const into = (source) => (grads[source] ??= new Float64Array(values[source].length));
      const whole = (node.op === "linear" || node.op === "softmax") && node.shape.length === 2;
      if (whole && node.op === "linear") {
        const [weight, to] = [weights[node.weight], into(node.from[0])];
        for (let r = 0; r < g.length; r++) if (g[r]) for (let k = 0; k < to.length; k++) to[k] += g[r] * weight[r * to.length + k];
      } else if (node.op === "reshape") {
        const to = into(node.from[0]);
        g.forEach((value, i) => (to[i] += value));
      } else if (node.op === "layer_norm") {
        const [x, to, length] = [values[node.from[0]], into(node.from[0]), node.shape.at(-1)];
        for (let at = 0; at < g.length; at += length) {
          const [mean, deviation] = statistics(x, at, length, node.eps);
          const scaled = range(length).map((i) => g[at + i] * (weights[node.weight]?.[i] ?? 1));
          const normal = range(length).map((i) => (x[at + i] - mean) / deviation);
          const [average, slope] = [0, 1].map((power) => scaled.reduce((sum, value, i) => sum + value * normal[i] ** power, 0) / length);
          scaled.forEach((value, i) => (to[at + i] += (value - average - normal[i] * slope) / deviation));
        }
      } else if (["act", "maxpool", "avgpool", "adaptive", "mean", "norm", "affine", "binary", "permute", "slice", "gather", "cat"].includes(node.op)) {
        if (node.op === "binary" && node.kind === "mul" && node.from.length > 1) throw new Error("the gradient through a gate is not computed");
        g.forEach((value, at) => {
          if (!value) return;
          const { rule, terms, kind } = explain(id, at);
          const best = rule === "max" && terms.findIndex((one) => one.value === values[id][at]);
          terms.forEach((one, i) => {
            let slope = one.weight;
            if (rule === "max") slope = i === best ? 1 : 0;
            if (rule === "act") {
              const f = (z) => ACTIVATIONS[kind](z, ...(node.settings ?? []));
              slope = kind === "relu" ? Number(one.value > 0) : (f(one.value + 1e-4) - f(one.value - 1e-4)) / 2e-4;
            }
            if (one.at >= 0) into(one.from)[one.at] += value * slope;
          });
        });
      } else throw new Error(`the gradient through ${node.op} is not computed`);
    }
    return grads[stop];
  }

  // The last maps with more than one place, and where they speak for a class (Selvaraju et al. 2017): the sum of the maps, each
  // weighted by the mean of the gradient of the class's score, cut at zero.
  function camNode() {
    return graph.nodes.findLastIndex(({ shape }) => shape.length === 4 && shape[2] > 1 && shape[3] > 1);
  }
  function gradCam(target) {
    const id = camNode();
    const [, C, H, W] = shapeOf(id);
    const g = gradient(target, id);
    const map = new Float64Array(H * W);
    for (let c = 0; c < C; c++) {
      let weight = 0;
      for (let i = 0; i < H * W; i++) weight += g[c * H * W + i] / (H * W);
      for (let i = 0; i < H * W; i++) map[i] += weight * values[id][c * H * W + i];
    }
    return { node: id, height: H, width: W, map: [...map.map((value) => Math.max(0, value))] };
  }

  // Probability of a class while a grey square (the mean colour) hides a part of the picture: `cells` x `cells` squares, each
  // twice as wide as the step from one to the next.
  function occlusion(pixels, target, cells, off) {
    const [, C, H, W] = shapeOf(0);
    const map = [];
    const held = values.map((one) => one.slice());
    for (let i = 0; i < cells; i++) for (let j = 0; j < cells; j++) {
      const hidden = Float32Array.from(pixels ?? seen);
      const [y0, y1] = [i - 0.5, i + 1.5].map((place) => clamp(Math.round((place * H) / cells), 0, H));
      const [x0, x1] = [j - 0.5, j + 1.5].map((place) => clamp(Math.round((place * W) / cells), 0, W));
      for (let c = 0; c < C; c++) for (let y = y0; y < y1; y++) hidden.fill(graph.mean[c], (c * H + y) * W + x0, (c * H + y) * W + x1);
      map.push(forward(hidden, off)[target]);
    }
    values.forEach((one, i) => one.set(held[i]));
    return { height: cells, width: cells, map };
  }

  // A small network before one comes: a browser compiles what has run for a while.
  function warm() {
    const shape = [1, 8, 24, 24];
    const like = { shape, kernel: [3, 3], stride: [1, 1], padding: [1, 1], dilation: [1, 1], groups: 1, weight: "w" };
    const kinds = [{ op: "conv" }, { op: "act", kind: "relu" }, { op: "maxpool" }, { op: "binary", kind: "add" }, { op: "mean", axes: [2, 3], shape: [1, 8] }];
    const nodes = [{ op: "input", from: [] }, ...kinds.map((one, i) => ({ from: one.kind === "add" ? [1, 3] : [i], ...one }))].map((one) => ({ ...like, ...one }));
    const header = new TextEncoder().encode(JSON.stringify({ w: { dtype: "F16", data_offsets: [0, 1e5] } }));
    const file = new Uint8Array(8 + header.length + 1e5);
    file[0] = header.length;
    file.set(header, 8);
    for (let i = 0; i < 20; i++) {
      load({ nodes, mean: Array(8).fill(0), std: Array(8).fill(1) }, file.buffer);
      run(new Float32Array(size(shape)), []);
      resizeBytes(new Uint8ClampedArray(4 * 64 * 64), 64, 3, 16, 16);
    }
  }

  return { warm, readWeights, load, see, run, resize, resizeBytes, explain, part, field, gradient, gradCam, occlusion, camNode, value: (id) => values[id].slice(), shape: shapeOf };
}
