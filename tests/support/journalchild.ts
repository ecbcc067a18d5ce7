import { writeSync } from "node:fs";
import { openJournal } from "../../src/enclave/journal.ts";
import type { FederatedRequestId } from "../../src/ids.ts";

/** Appends records to the journal named by its argument until it is killed; prints one line for each that is durable. */
const journal = openJournal(process.argv[2] ?? "", new Uint8Array(32).fill(1));
for (let n = 1; ; n++) {
  journal.attempted({
    requestId: n.toString(16).padStart(64, "0") as FederatedRequestId,
    attempt: 1,
    action: "sign",
    requester: new Uint8Array(32),
    keyId: null,
    amount: null,
    atMs: n,
  });
  writeSync(1, `${n}\n`);
}
