import { existsSync, readFileSync, rmSync } from "node:fs";
import { dirname, resolve } from "node:path";
import { equalBytes, wipe } from "../../crypto/bytes.ts";
import { sha256 } from "../../crypto/kdf.ts";
import { Fault } from "../../errors.ts";
import { type AgeOpen, type AgeSeal, ageIdentities, checkAgeRecipient } from "../../formats/age.ts";
import { demandDatabase } from "../../server/database.ts";
import { readKeyFiles } from "../../server/directory.ts";
import { ARCHIVE_MAX, openKeyFiles, sealKeyFiles } from "../../server/keyarchive.ts";
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
    recipient: {
      type: "string",
      hint: "AGE",
      description: "age recipient (age1…) to whom the keys are sealed; otherwise a password is asked for",
    },
    ...ARCHIVE_PASSWORD_ARGS,
  },
  data: "{data, keys, bytes, accounts, keysDigest}",
  details:
    "Copies the database as of one moment, while the server runs, and seals the keys. Keep the two files in different " +
    "places: together they allow guessing passwords, either alone allows nothing.",
  examples: [
    [
      "keyhold server backup --data data.db --keys keys.age --recipient age1…",
      "two files; the keys open with the operator's age identity",
    ],
  ],
  run: async (args, ctx) => {
    const dir = await demandServer(ctx, args.dir);
    const [data, keys] = [resolve(args.data), resolve(args.keys)];
    if (data === keys) throw new Fault("bad_input", "data and keys are two files, kept apart");
    for (const path of [data, keys]) {
      if (existsSync(path)) {
        throw new Fault("exists", `${JSON.stringify(path)} exists`, { hint: "choose another file" });
      }
      if (!existsSync(dirname(path))) {
        throw new Fault("not_found", `there is no directory for ${JSON.stringify(path)}`, {
          hint: "choose another file",
        });
      }
    }
    const to = await sealFor(ctx, args.recipient, args);
    const before = await readKeyFiles(dir);
    let after: KeyFiles = new Map();
    let copied: ControlOutput<"backup">;
    try {
      copied = await ctx.term.step("Copying the database", administer(ctx, args.dir, "backup", { path: data }));
      after = await readKeyFiles(dir);
      if (!sameFiles(before, after)) {
        throw new Fault("conflict", "a key of the server was rotated meanwhile", { hint: "run the backup again" });
      }
      writeNewFile(keys, await sealKeyFiles(after, Date.now(), to));
    } catch (error) {
      rmSync(data, { force: true });
      throw error;
    } finally {
      wipe(...before.values(), ...after.values());
    }
    const digest = (path: string) => `sha256:${sha256(readFileSync(path)).toHex()}`;
    const facts = { data, keys, bytes: copied.bytes, accounts: copied.accounts, keysDigest: digest(keys) };
    return result(facts, () =>
      [
        `data  ${plain(data)}   (${copied.bytes} bytes, ${copied.accounts} accounts)`,
        `keys  ${plain(keys)}   (sealed)`,
        "Keep them in different places. Try them: keyhold server restore --dir NEW --data FILE --keys FILE",
      ].join("\n"),
    );
  },
});

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

export const serverRestore = defineCommand({
  args: {
    ...DIR,
    data: { type: "string", hint: "FILE", required: true, description: "the data file", ask: "File of the data" },
    keys: { type: "string", hint: "FILE", required: true, description: "the keys' age file", ask: "File of the keys" },
    identity: {
      type: "string",
      hint: "FILE",
      description: "age identity file that opens the keys; otherwise their password is asked for",
    },
    database: {
      type: "string",
      hint: "postgres://…",
      description: "an empty database to restore into (default: DIR/keyhold.db)",
    },
    ...ARCHIVE_PASSWORD_ARGS,
  },
  data: "{dir, accounts, incarnation, backupAt}",
  details:
    "Verifies the backup whole, then begins a new incarnation: sessions and invites end, and clients refuse the " +
    "server (exit 8) until their owners run `keyhold sync --accept-restore`, which gives back what was lost.",
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
    const { files, madeAtMs } = await openKeyFiles(sealed, by);
    try {
      const { now, random } = surroundings(ctx);
      const restoring = restoreServer({ dir, database, data: resolve(args.data), keys: files, now, random });
      const { accounts, incarnation } = await ctx.term.step("Verifying the backup", restoring);
      const backupAt = new Date(madeAtMs).toISOString();
      return result({ dir, accounts, incarnation, backupAt }, () =>
        [
          `restored ${accounts} accounts of ${backupAt} into ${plain(dir)}`,
          "Tell your users: keyhold sync --accept-restore",
          "Next: keyhold serve --dir DIR",
        ].join("\n"),
      );
    } finally {
      wipe(...files.values());
    }
  },
});
