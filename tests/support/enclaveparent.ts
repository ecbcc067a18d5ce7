import { appendFileSync } from "node:fs";
import { join } from "node:path";
import { type EnclaveOperation, enclaveOperations } from "../../src/enclave/api.ts";
import type { Fault } from "../../src/errors.ts";
import { type EnclaveClient, startEnclave } from "../../src/server/enclave.ts";
import { openSqlite } from "../../src/storage/sqlite.ts";
import type { Codec, Json } from "../../src/wire/codec.ts";

/**
 * Stands for the server process: in front of enclaves in the directories `1`, `2` … of its argument, it relays what it
 * reads, one JSON line a question, keeps sealed shares in a database and logs. Its memory, database, log and core are
 * what a test looks at.
 */
const dir = process.argv[2] ?? "";
const MAIN = join(import.meta.dir, "../../src/main.ts");
const store = await openSqlite(join(dir, "keyhold.db"));
const clients = new Map<number, EnclaveClient>();
/** Kept alive: what a test plants to see that its search finds something. */
const planted: Uint8Array[] = [];

function clientOf(index: number): EnclaveClient {
  const known = clients.get(index);
  if (known) return known;
  const made = startEnclave({
    dir: join(dir, String(index)),
    command: [process.execPath, MAIN, "__enclave"],
    log: { write: (level, fields) => appendFileSync(join(dir, "log"), `${JSON.stringify({ level, ...fields })}\n`) },
  });
  clients.set(index, made);
  return made;
}

async function keep(index: number, kind: string, body: string): Promise<void> {
  await store.transaction(async (tx) => {
    const id = String(index);
    const version = (await tx.document(kind, id))?.version ?? 0;
    await tx.putDocument({ kind, id, owner: "", place: 0, body: new TextEncoder().encode(body) }, version);
  });
}

async function answer(index: number, operation: EnclaveOperation, input: Json): Promise<Json> {
  const { input: reads, output: writes } = enclaveOperations[operation] as {
    input: Codec<never>;
    output: Codec<never>;
  };
  const given = reads.decode(input, "");
  const output = writes.encode((await clientOf(index).call(operation, given)) as never);
  const text = JSON.stringify(output);
  appendFileSync(join(dir, "log"), `${operation} ${text.length}\n`);
  if (text.includes('"sealed":"')) await keep(index, operation === "confirm" ? "share" : "pendingShare", text);
  return output;
}

async function line(text: string): Promise<void> {
  const { id, index, operation, input } = JSON.parse(text);
  try {
    if (operation === "plant") {
      planted.push(Uint8Array.fromHex(input.split("").reverse().join("")));
      process.stdout.write(`${JSON.stringify({ id, output: planted.length })}\n`);
      return;
    }
    process.stdout.write(`${JSON.stringify({ id, output: await answer(index, operation, input) })}\n`);
  } catch (error) {
    process.stdout.write(`${JSON.stringify({ id, fault: (error as Fault).code })}\n`);
  }
}

for await (const text of console) if (text !== "") void line(text);
for (const client of clients.values()) await client.close();
await store.close();
