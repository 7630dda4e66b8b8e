// Calls functions of an explorer's module: `node run.mjs module.mjs < calls.json`, where calls is [[name, ...arguments], ...];
// prints their results as JSON.
import { readFileSync } from "node:fs";
import { pathToFileURL } from "node:url";

const functions = await import(pathToFileURL(process.argv[2]).href);
const calls = JSON.parse(readFileSync(0, "utf8"));
console.log(JSON.stringify(calls.map(([name, ...rest]) => functions[name](...rest))));
