// Runs the page's engine: `node live.mjs engine.mjs [plain] < calls.json`, "plain" without WebAssembly, where calls is [[name, ...arguments], ...] and {"file": path}
// stands for a file's bytes, {"floats": path} for a file of 32-bit numbers. Prints the results as JSON.
import { readFileSync } from "node:fs";
import { pathToFileURL } from "node:url";

if (process.argv[3] === "plain") delete globalThis.WebAssembly;
const { engine } = await import(pathToFileURL(process.argv[2]).href);
const network = engine();
const bytes = (path) => {
  const file = readFileSync(path);
  return file.buffer.slice(file.byteOffset, file.byteOffset + file.byteLength);
};
const real = (argument) => (argument?.file ? bytes(argument.file) : argument?.floats ? new Float32Array(bytes(argument.floats))
  : argument?.json ? JSON.parse(readFileSync(argument.json, "utf8")) : argument);
const plain = (found) => (ArrayBuffer.isView(found) ? [...found] : found ?? null);
const results = JSON.parse(readFileSync(0, "utf8")).map(([name, ...rest]) => {
  const start = process.cpuUsage().user;
  const result = network[name](...rest.map(real));
  return { result: plain(result), milliseconds: (process.cpuUsage().user - start) / 1000 };
});
console.log(JSON.stringify(results));
