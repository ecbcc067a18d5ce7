import type { KeyholdClient } from "../client/api.ts";
import { Fault } from "../errors.ts";
import { ageRecipientFor } from "../formats/publickey.ts";
import { type Context, defineCommand } from "../ui/command.ts";
import { OUT_FILE_ARGS, type OutFile, outFile, putFileFrom } from "../ui/outfile.ts";
import { type Result, result } from "../ui/output.ts";
import { withClient } from "../ui/session.ts";
import { keyPair } from "./key.ts";
import { sourceOf } from "./keysign.ts";

const FILES = {
  inFile: { type: "string", hint: "FILE", required: true, description: "the file (- is stdin)" },
  ...OUT_FILE_ARGS,
} as const;

/** Runs work that writes piece by piece: into a file that is there once all of it is, or to stdout. */
async function written(
  ctx: Context,
  file: OutFile | null,
  work: (write: (piece: Uint8Array) => void) => Promise<number>,
): Promise<number> {
  return file === null ? work((piece) => ctx.out.bytes(piece)) : putFileFrom(file, work);
}

function said(file: OutFile | null, data: object): Result | undefined {
  return file === null ? undefined : result({ ...data, out: file.path }, () => "");
}

/** The recipient of a stored key. */
async function recipientOf(client: KeyholdClient, name: string): Promise<string> {
  const got = await client.get({ name, version: null, reveal: false, fresh: false, save: false });
  const { type, publicKey } = keyPair(got.info);
  const recipient = await ageRecipientFor(type, publicKey);
  if (recipient !== null) return recipient;
  throw new Fault("bad_input", `"${got.info.name}" opens no files: it is an ECDSA key`, {
    hint: "keyhold generate NAME --type x25519",
  });
}

export const keyEncrypt = defineCommand({
  args: {
    name: { type: "positional", complete: "secret", description: "the key that is to open it", ask: "Name of the key" },
    ...FILES,
    recipient: {
      type: "list",
      hint: "RECIPIENT",
      description: "somebody else who is to open it too: age1…, ssh-ed25519 …, ssh-rsa … (repeatable)",
    },
  },
  data: "{name, recipients, size, out}, recipients a count; without --out the file is on stdout",
  details:
    "The file is in the age format: `age -d` opens it with the same key. Keys of type x25519, ed25519, rsa and ssh.",
  examples: [
    ["keyhold key encrypt backup/box --in-file db.dump --out db.dump.age", "for a key of the vault"],
    ["tar -c docs | keyhold key encrypt backup/box --in-file - --out - > docs.tar.age", "in a pipe"],
  ],
  run: async (args, ctx) => {
    const file = outFile(args);
    if (file === null && ctx.out.width !== null) {
      throw new Fault("usage", "an encrypted file is not for the terminal", { hint: "--out FILE" });
    }
    const source = sourceOf(ctx, args.inFile);
    try {
      const own = await withClient(ctx, (client) => recipientOf(client, args.name));
      const recipients = [own, ...args.recipient];
      const { ageSealTo } = await import("../formats/agestream.ts");
      const size = await written(ctx, file, (write) => ageSealTo((limit) => source.read(limit), recipients, write));
      return said(file, { name: args.name, recipients: recipients.length, size });
    } finally {
      source.close();
    }
  },
});

export const keyDecrypt = defineCommand({
  args: {
    name: { type: "positional", complete: "secret", description: "the key that opens it", ask: "Name of the key" },
    ...FILES,
  },
  data: "{name, size, out}; without --out the content is on stdout",
  details: `Opens files in the age format, of \`age\` too. The key stays where it is: it opens the file's own key, and nothing else of
the file reaches it. A file that was changed or cut off leaves no output file; on stdout what came before the damage is
there, and the exit code is 8.`,
  examples: [
    ["keyhold key decrypt backup/box --in-file db.dump.age --out db.dump", "into a new file, 0600"],
    ["keyhold key decrypt backup/box --in-file docs.tar.age | tar -x", "in a pipe"],
  ],
  run: async (args, ctx) => {
    const file = outFile(args);
    const source = sourceOf(ctx, args.inFile);
    const { name } = args;
    try {
      return await withClient(ctx, async (client) => {
        const { ageOpenTo } = await import("../formats/agestream.ts");
        const unwrap = async (stanzas: Parameters<KeyholdClient["unwrapFileKey"]>[0]["stanzas"]) =>
          (await client.unwrapFileKey({ name, version: null, stanzas })).fileKey;
        const size = await written(ctx, file, (write) => ageOpenTo((limit) => source.read(limit), unwrap, write));
        return said(file, { name, size });
      });
    } finally {
      source.close();
    }
  },
});
