import { Fault } from "../../src/errors.ts";
import { scrubEnvironment } from "../../src/wire/environment.ts";
import { connectServer } from "../../src/wire/transport.ts";

// Run by tests/wire/environment.test.ts as its own process, under a hostile environment.
scrubEnvironment(process.env);
const [url = "", pin = ""] = process.argv.slice(2);
const outcome = await connectServer({ url, pin, caPem: null, minStatement: 0, now: Date.now }).then(
  ({ mode }) => mode,
  (error: unknown) => (error instanceof Fault ? error.code : "other"),
);
process.stdout.write(outcome);
