import { rmSync } from "node:fs";
import { equalBytes, wipe } from "../crypto/bytes.ts";
import { sha256 } from "../crypto/kdf.ts";
import { Fault } from "../errors.ts";
import type { ForeignFormat, PlainItem } from "../formats/index.ts";
import { type FormatName, factsOf, WRITE_FORMATS } from "../formats/names.ts";
import { type Context, defineCommand } from "../ui/command.ts";
import { ARCHIVE_PASSWORD_ARGS } from "../ui/flags.ts";
import { type OutFile, outFile, putFile } from "../ui/outfile.ts";
import { result } from "../ui/output.ts";
import { readSecretFile } from "../ui/password.ts";
import { withClient } from "../ui/session.ts";
import { plain } from "../ui/text.ts";
import type { ArchiveKeys } from "./archivekeys.ts";

export default defineCommand({
  args: {
    all: { type: "boolean", description: "every secret" },
    to: { type: "enum", options: WRITE_FORMATS, default: "age", description: "format to write (default: age)" },
    out: {
      type: "string",
      hint: "FILE",
      required: true,
      description: "new file, 0600 (- is stdout)",
      ask: "File to write",
    },
    recipient: {
      type: "list",
      hint: "KEY",
      description: "seal an age archive to age1…, ssh-ed25519 …, ssh-rsa …, or @FILE of them (repeatable)",
    },
    protect: { type: "boolean", description: "encrypt by a password: pem, bitwarden" },
    ...ARCHIVE_PASSWORD_ARGS,
    prefix: { type: "string", hint: "PREFIX", description: "only names that begin so" },
    tag: { type: "string", hint: "TAG", description: "only secrets with this tag" },
    skipUnsupported: { type: "boolean", description: "leave out what the format cannot hold" },
    fresh: { type: "boolean", description: "insist on the server's answer" },
    names: {
      type: "positionals",
      complete: "secret",
      required: false,
      hint: "NAME",
      description: "names of the secrets",
    },
  },
  data: "{count, lost:[…], digest, out, format, encrypted}; the digest is sha256: and hexadecimal digits",
  details:
    "An age archive is encrypted to recipients, or to a password that is asked for. Other formats hold the values in " +
    "clear, except pem and bitwarden with --protect. What was written is opened again and compared. Types that a " +
    "format cannot hold are refused, or left out with --skip-unsupported and exit code 10.",
  examples: [
    ["keyhold export --all --out backup.age", "everything, encrypted by a password"],
    ['keyhold export --all --out backup.age --recipient "$(cat ~/.ssh/id_ed25519.pub)"', "to an SSH key"],
    ["keyhold export --all --to json --out backup.json", "everything in the native format, in clear"],
    ["keyhold export tls/key --to pem --protect --out key.pem", "one private key, encrypted"],
  ],
  run: async (args, ctx) => {
    const out = outFile({ out: args.out, mode: null, force: null });
    const { formatNamed, refuseTypes } = await import("../formats/index.ts");
    const { archiveKeys, recipientsOf } = await import("./archivekeys.ts");
    const { fetchItems, holdable, selected, writable } = await import("./exportitems.ts");
    const format = await formatNamed(args.to, { protect: args.protect });
    const recipients = recipientsOf(args.recipient);
    await checkRecipients(format, recipients);
    if (out === null && format.binary && ctx.out.width !== null) {
      throw new Fault("usage", `${format.name} is not for a terminal`, { hint: "--out FILE" });
    }
    return withClient(ctx, async (client) => {
      const infos = await selected(client, args);
      const { held, left } = holdable(format, infos);
      const absent = new Uint8Array(0);
      if (!args.skipUnsupported)
        await refuseTypes(
          format,
          infos.map((info) => ({ ...info, value: absent })),
        );
      if (format.kind === "single" && held.length !== 1) {
        throw new Fault("bad_input", `${format.name} holds one secret`, {
          hint: "export one name, or --to age or json",
        });
      }
      const { items: fetched, requestId } = await fetchItems(client, held, args.fresh, ctx.term);
      const keys = archiveKeys(ctx, args, "new", []);
      try {
        const trial = args.skipUnsupported && format.kind === "many" && !OWN_FORMATS.includes(args.to);
        const able = trial ? await writable(await formatNamed(args.to), fetched) : { items: fetched, left: [] };
        const { items } = able;
        if (items.length === 0 && !OWN_FORMATS.includes(args.to)) throw nothingToWrite(args.to);
        const written = await checkedFile(ctx, format, items, recipients, keys);
        const { file } = written;
        const lost = [...left, ...able.left, ...written.lost];
        const exit = lost.length > 0 ? 10 : 0;
        warn(ctx, format, args.to, out);
        if (!format.keeps.includes("origin")) tellSeen(ctx, items);
        const about = { count: items.length, lost, digest: `sha256:${sha256(file).toHex()}` };
        if (out === null) {
          ctx.out.bytes(file);
          for (const what of lost) ctx.out.notice(`lost: ${plain(what)}`);
          return exit;
        }
        place(out, file);
        const data = { ...about, out: out.path, format: format.name, encrypted: format.encrypted };
        const lines = [
          `exported ${items.length} to ${plain(out.path)} (${format.name}), read back and compared`,
          ...lost.slice(0, SHOWN).map((what) => `lost: ${plain(what)}`),
          ...(lost.length > SHOWN ? [`lost: ${lost.length - SHOWN} more (--json lists all)`] : []),
        ];
        return result(data, () => lines.join("\n"), { requestId, exit });
      } finally {
        keys.end();
        for (const item of fetched) wipe(item.value);
      }
    });
  },
});

/** Lines about what is lost that people see; `--json` has all. */
const SHOWN = 50;

/** Formats that hold whatever a secret holds. */
const OWN_FORMATS: readonly FormatName[] = ["json", "age"];

function nothingToWrite(format: FormatName): Fault {
  return new Fault("bad_input", `there is nothing to export as ${format}`, {
    why: "no secret that was chosen can be written so",
    hint: "--to age, or --to json",
  });
}

async function checkRecipients(format: ForeignFormat, recipients: readonly string[]): Promise<void> {
  if (recipients.length === 0) return;
  if (format.name !== "age") throw new Fault("usage", "--recipient is for age archives", { hint: "--to age" });
  const { checkAgeRecipient } = await import("../formats/age.ts");
  for (const recipient of recipients) checkAgeRecipient(recipient);
}

/** Writes in memory and reads it back. */
async function checkedFile(
  ctx: Context,
  format: ForeignFormat,
  items: readonly PlainItem[],
  recipients: readonly string[],
  keys: ArchiveKeys,
): Promise<{ file: Uint8Array; lost: readonly string[] }> {
  const { verifyWritten } = await import("../formats/index.ts");
  if (format.write === undefined) throw new Fault("bad_input", `${format.name} is read, and not written`);
  const passwordless = !format.encrypted || recipients.length > 0;
  // asked for before the progress is shown
  if (!passwordless) wipe(await keys.password());
  const { write } = format;
  const work = async () => {
    const written = await write(items, { recipients, asks: keys });
    const lost = written.lost.map(({ what }) => what);
    if (written.checked !== true) await verifyWritten(format, items, written.file, keys, lost.length > 0);
    return { file: written.file, lost };
  };
  return ctx.term.step("Writing and comparing", work());
}

/** Puts the file in its place and reads it from there once more; what is not the same is removed. */
function place(out: OutFile, file: Uint8Array): void {
  putFile(out, file);
  const again = readSecretFile(out.path, file.length + 1, "accept");
  const same = equalBytes(again, file);
  wipe(again);
  if (same) return;
  rmSync(out.path, { force: true });
  throw new Fault("corrupt", "the file is not what was written", { hint: "is the disk sound? export again" });
}

/** Names the secrets that a server has seen, where the file does not say so (P12). */
function tellSeen(ctx: Context, items: readonly PlainItem[]): void {
  const names = items.flatMap(({ name, origin }) => (origin === undefined ? [] : [name]));
  if (names.length === 0) return;
  ctx.out.notice(`the file does not say that a server has seen ${names.map(plain).join(", ")} (--to age does)`);
}

function warn(ctx: Context, format: ForeignFormat, name: FormatName, out: OutFile | null): void {
  const { caution, encrypted } = factsOf(name);
  if (caution !== undefined) ctx.out.notice(`${name}: ${caution}`);
  if (format.encrypted || out === null) return;
  const how = encrypted === "asked" ? "--protect encrypts it" : "--to age encrypts";
  ctx.out.notice(`the file holds secrets in clear (${how})`);
}
