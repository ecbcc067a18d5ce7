import { existsSync, readFileSync, rmSync } from "node:fs";
import { dirname, resolve } from "node:path";
import { equalBytes, wipe } from "../../crypto/bytes.ts";
import { sha256 } from "../../crypto/kdf.ts";
import { enclavePaths } from "../../enclave/sealingkey.ts";
import { Fault } from "../../errors.ts";
import { type AgeOpen, type AgeSeal, ageIdentities, checkAgeRecipient } from "../../formats/age.ts";
import { demandDatabase } from "../../server/database.ts";
import { readKeyFiles } from "../../server/directory.ts";
import { readEnclaveFiles } from "../../server/enclavebackup.ts";
import { lostWith } from "../../server/enclavesite.ts";
import { ARCHIVE_MAX, enclaveArchive, keyArchive } from "../../server/keyarchive.ts";
import { restoreServer } from "../../server/restore.ts";
import { databaseFile } from "../../storage/open.ts";
import { type Context, defineCommand } from "../../ui/command.ts";
import { ARCHIVE_PASSWORD_ARGS } from "../../ui/flags.ts";
import { writeNewFile } from "../../ui/outfile.ts";
import { result } from "../../ui/output.ts";
import { archivePassword, readSecretFile } from "../../ui/password.ts";
import { surroundings } from "../../ui/session.ts";
import { plain } from "../../ui/text.ts";
import type { ControlOutput } from "../../wire/control.ts";
import { administer, DIR, demandServer, directoryOf } from "./admin.ts";

type Password = { readonly archivePasswordFd: number | null; readonly archivePasswordFile: string | null };

async function sealFor(ctx: Context, recipient: string | null, args: Password): Promise<AgeSeal> {
  if (recipient !== null) {
    checkAgeRecipient(recipient);
    return { recipients: [recipient] };
  }
  const password = await archivePassword(ctx, args, "new");
  try {
    return { passphrase: new TextDecoder().decode(password) };
  } finally {
    wipe(password);
  }
}

type KeyFiles = ReadonlyMap<string, Uint8Array>;

/** True when no key was rotated between two readings: the data that was copied meanwhile lies under these. */
function sameFiles(a: KeyFiles, b: KeyFiles): boolean {
  return a.size === b.size && [...a].every(([name, content]) => equalBytes(content, b.get(name) ?? new Uint8Array(0)));
}

export const serverBackup = defineCommand({
  args: {
    ...DIR,
    data: {
      type: "string",
      hint: "FILE",
      required: true,
      description: "new file for the database",
      ask: "File for the data",
    },
    keys: {
      type: "string",
      hint: "FILE",
      required: true,
      description: "new age file for the server's keys",
      ask: "File for the keys",
    },
    enclave: {
      type: "string",
      hint: "FILE",
      description: "new age file for the enclave: what stored keys, ceremonies and shares open with",
    },
    recipient: {
      type: "string",
      hint: "AGE",
      description: "age recipient (age1…) to whom keys and enclave are sealed; otherwise a password is asked for",
    },
    ...ARCHIVE_PASSWORD_ARGS,
  },
  data: "{data, keys, enclave, enclaveLeftOut, bytes, accounts, keysDigest}",
  details:
    "Copies the database as of one moment, while the server runs, and seals the keys. Keep the files in different " +
    "places: data and keys together allow guessing passwords, data and enclave together have every stored key in " +
    "them; each alone allows nothing. Without --enclave stored keys and ceremonies are not in the backup.",
  examples: [
    [
      "keyhold server backup --data data.db --keys keys.age --recipient age1…",
      "two files; the keys open with the operator's age identity",
    ],
    [
      "keyhold server backup --data data.db --keys keys.age --enclave enclave.age --recipient age1…",
      "with stored keys and ceremonies, too",
    ],
  ],
  run: async (args, ctx) => {
    const dir = await demandServer(ctx, args.dir);
    const [data, keys] = [resolve(args.data), resolve(args.keys)];
    const enclave = args.enclave === null ? null : resolve(args.enclave);
    const paths = [data, keys, ...(enclave === null ? [] : [enclave])];
    if (new Set(paths).size < paths.length)
      throw new Fault("bad_input", "data, keys and enclave are files of their own, kept apart");
    for (const path of paths) {
      if (existsSync(path)) {
        throw new Fault("exists", `${JSON.stringify(path)} exists`, { hint: "choose another file" });
      }
      if (!existsSync(dirname(path))) {
        throw new Fault("not_found", `there is no directory for ${JSON.stringify(path)}`, {
          hint: "choose another file",
        });
      }
    }
    const hasEnclave = existsSync(enclavePaths(dir).directory);
    if (enclave !== null && !hasEnclave)
      throw new Fault("not_found", "this server has had no enclave so far", { hint: "leave --enclave out" });
    const to = await sealFor(ctx, args.recipient, args);
    const before = await readKeyFiles(dir);
    let after: KeyFiles = new Map();
    let copied: ControlOutput<"backup">;
    let enclaveWritten = false;
    try {
      copied = await ctx.term.step("Copying the database", administer(ctx, args.dir, "backup", { path: data }));
      after = await readKeyFiles(dir);
      if (!sameFiles(before, after)) {
        throw new Fault("conflict", "a key of the server was rotated meanwhile", { hint: "run the backup again" });
      }
      // after the data: a journal may know more than they do, never less
      if (enclave !== null) writeNewFile(enclave, await sealEnclave(dir, to));
      enclaveWritten = enclave !== null;
      writeNewFile(keys, await keyArchive.seal(after, Date.now(), to));
    } catch (error) {
      rmSync(data, { force: true });
      if (enclave !== null && enclaveWritten) rmSync(enclave, { force: true });
      throw error;
    } finally {
      wipe(...before.values(), ...after.values());
    }
    const digest = (path: string) => `sha256:${sha256(readFileSync(path)).toHex()}`;
    const enclaveLeftOut = hasEnclave && enclave === null;
    const { bytes, accounts } = copied;
    const facts = { data, keys, enclave, enclaveLeftOut, bytes, accounts, keysDigest: digest(keys) };
    return result(facts, () =>
      [
        `data     ${plain(data)}   (${bytes} bytes, ${accounts} accounts)`,
        `keys     ${plain(keys)}   (sealed)`,
        ...(enclave === null ? [] : [`enclave  ${plain(enclave)}   (sealed)`]),
        ...(enclaveLeftOut ? ["Without --enclave no stored key and no share comes back with it."] : []),
        "Keep them in different places. Try them: keyhold server restore --dir NEW --data FILE --keys FILE",
      ].join("\n"),
    );
  },
});

async function sealEnclave(dir: string, to: AgeSeal): Promise<Uint8Array> {
  const files = await readEnclaveFiles(dir);
  try {
    return await enclaveArchive.seal(files ?? new Map(), Date.now(), to);
  } finally {
    wipe(...(files?.values() ?? []));
  }
}

async function openWith(ctx: Context, identity: string | null, args: Password): Promise<AgeOpen> {
  if (identity !== null) {
    const text = readSecretFile(identity, 64 * 1_024, "refuse");
    try {
      return { identities: ageIdentities(new TextDecoder().decode(text)) };
    } finally {
      wipe(text);
    }
  }
  const password = await archivePassword(ctx, args, "known");
  try {
    return { passphrase: new TextDecoder().decode(password) };
  } finally {
    wipe(password);
  }
}

async function openEnclave(path: string, by: AgeOpen): Promise<ReadonlyMap<string, Uint8Array>> {
  const sealed = readSecretFile(path, 2 * enclaveArchive.max, "accept");
  return (await enclaveArchive.open(sealed, by)).files;
}

export const serverRestore = defineCommand({
  args: {
    ...DIR,
    data: { type: "string", hint: "FILE", required: true, description: "the data file", ask: "File of the data" },
    keys: { type: "string", hint: "FILE", required: true, description: "the keys' age file", ask: "File of the keys" },
    enclave: { type: "string", hint: "FILE", description: "the enclave's age file, if the backup has one" },
    identity: {
      type: "string",
      hint: "FILE",
      description: "age identity file that opens keys and enclave; otherwise their password is asked for",
    },
    database: {
      type: "string",
      hint: "postgres://…",
      description: "an empty database to restore into (default: DIR/keyhold.db)",
    },
    ...ARCHIVE_PASSWORD_ARGS,
  },
  data: "{dir, accounts, incarnation, backupAt, lost}; lost is null, or {storedKeys, openCeremonies} that need the missing enclave",
  details:
    "Verifies the backup whole, then begins a new incarnation: sessions and invites end, and clients refuse the " +
    "server (exit 8) until their owners run `keyhold sync --accept-restore`, which gives back what was lost. With " +
    "--enclave stored keys are back, and ceremonies that were open end: their participants begin anew.",
  examples: [
    [
      "keyhold server restore --dir /srv/keyhold --data data.db --keys keys.age --identity key.txt",
      "into a new or empty directory",
    ],
  ],
  run: async (args, ctx) => {
    const dir = await directoryOf(ctx, args.dir);
    const given = (await ctx.settings()).get("database", args.database);
    demandDatabase(given, { flag: args.database, reusePort: false });
    const database = given !== null && databaseFile(given) === undefined ? given : null;
    const sealed = readSecretFile(resolve(args.keys), ARCHIVE_MAX, "accept");
    const by = await openWith(ctx, args.identity, args);
    const { files, madeAtMs } = await keyArchive.open(sealed, by);
    let enclave: ReadonlyMap<string, Uint8Array> | null = null;
    try {
      enclave = args.enclave === null ? null : await openEnclave(resolve(args.enclave), by);
      const { now, random } = surroundings(ctx);
      const restoring = restoreServer({ dir, database, data: resolve(args.data), keys: files, enclave, now, random });
      const { accounts, incarnation, lost } = await ctx.term.step("Verifying the backup", restoring);
      const backupAt = new Date(madeAtMs).toISOString();
      return result({ dir, accounts, incarnation, backupAt, lost }, () =>
        [
          `restored ${accounts} accounts of ${backupAt} into ${plain(dir)}`,
          ...(lost
            ? [
                `The enclave is not in it; nothing opens without (${lostWith(lost)}).`,
                "Put its directory into DIR/enclave before the first start, or give it up: keyhold server rotate --ceremony --yes",
              ]
            : []),
          "Tell your users: keyhold sync --accept-restore",
          "Next: keyhold serve --dir DIR",
        ].join("\n"),
      );
    } finally {
      wipe(...files.values(), ...(enclave?.values() ?? []));
    }
  },
});
