import { argon2 } from "node:crypto";
import { promisify } from "node:util";
import { Consts, Credentials, CryptoEngine, Int64, Kdbx, ProtectedValue, VarDictionary } from "kdbxweb";

/** KDBX 4 files for the peer keepassxc-cli, at a cost that the bench chooses. */

/** What it takes to open the file: Argon2id as ours, or AES-KDF with so many rounds. */
export type KdbxCost =
  | { readonly memoryKib: number; readonly passes: number; readonly lanes: number }
  | { readonly rounds: number };

CryptoEngine.setArgon2Impl(async (password, salt, memory, iterations, length, parallelism) => {
  const given = { message: new Uint8Array(password), nonce: new Uint8Array(salt), memory, passes: iterations };
  const derive = promisify((done: (error: Error | null, key: Buffer) => void) =>
    argon2("argon2id", { ...given, parallelism, tagLength: length }, done),
  );
  return new Uint8Array(await derive()).buffer;
});

/** A database with these titles, each entry with a password. */
export async function makeKdbx(password: string, titles: readonly string[], cost: KdbxCost): Promise<Uint8Array> {
  const db = Kdbx.create(new Credentials(ProtectedValue.fromString(password)), "bench");
  const u64 = VarDictionary.ValueType.UInt64;
  if ("rounds" in cost) {
    db.setKdf(Consts.KdfId.Aes);
    db.header.kdfParameters?.set("R", u64, Int64.from(cost.rounds));
  } else {
    db.setKdf(Consts.KdfId.Argon2id);
    const parameters = db.header.kdfParameters;
    parameters?.set("M", u64, Int64.from(cost.memoryKib * 1_024));
    parameters?.set("I", u64, Int64.from(cost.passes));
    parameters?.set("P", VarDictionary.ValueType.UInt32, cost.lanes);
  }
  const group = db.getDefaultGroup();
  for (const title of titles) {
    const entry = db.createEntry(group);
    entry.fields.set("Title", title);
    entry.fields.set("Password", ProtectedValue.fromString(`secret of ${title}`));
  }
  return new Uint8Array(await db.save());
}
