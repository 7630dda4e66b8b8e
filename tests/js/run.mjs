// Calls functions of an explorer's module: `node run.mjs module.mjs`, each line of whose input is calls as JSON,
// [[name, ...arguments], ...]; answers each with a line, {"results": [...]} or {"error": text}, until its input ends.
import { createInterface } from "node:readline";
import { pathToFileURL } from "node:url";

const functions = await import(pathToFileURL(process.argv[2]).href);
for await (const line of createInterface({ input: process.stdin, crlfDelay: Infinity })) {
  let answer;
  try {
    answer = { results: JSON.parse(line).map(([name, ...rest]) => functions[name](...rest)) };
  } catch (error) {
    answer = { error: String(error.stack) };
  }
  console.log(JSON.stringify(answer));
}
