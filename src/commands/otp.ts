import type { Got, KeyholdClient, OtpCode } from "../client/api.ts";
import { wipe } from "../crypto/bytes.ts";
import { Fault } from "../errors.ts";
import type { Field } from "../protocol/content.ts";
import { base32Key, checkOtpKey, type OtpKey, otpUri, parseOtpUri } from "../protocol/otp.ts";
import { OTP_ALGORITHMS } from "../protocol/otpalgorithm.ts";
import { type Context, defineCommand } from "../ui/command.ts";
import { VALUE_ARGS } from "../ui/flags.ts";
import { writeNewFile } from "../ui/outfile.ts";
import { result } from "../ui/output.ts";
import { readSecretFile, readValue } from "../ui/password.ts";
import { withClient } from "../ui/session.ts";
import { decodeText, plain } from "../ui/text.ts";
import { copyCode, demandClipboard } from "./codecopy.ts";
import { SECRET_ARG, WRITE_ARGS, writtenData, writtenLine } from "./secretargs.ts";

/** What the text behind a code may be told, where it is a bare key. */
interface Said {
  readonly issuer: string | null;
  readonly label: string | null;
  readonly algorithm: (typeof OTP_ALGORITHMS)[number] | null;
  readonly digits: number | null;
  readonly period: number | null;
  readonly counter: number | null;
}

/** The key behind an otpauth:// URI, or behind base32 and the flags. @throws Fault bad_input, usage */
function keyOf(text: string, said: Said, name: string): OtpKey {
  const flags = Object.entries(said).filter(([, value]) => value !== null);
  if (/^otpauth-migration:/i.test(text)) {
    throw new Fault("bad_input", "this is an export of several one-time passwords", {
      hint: "keyhold import FILE --from otpauth",
    });
  }
  if (/^otpauth:/i.test(text)) {
    if (flags.length > 0) throw new Fault("usage", `an otpauth:// URI says by itself what --${flags[0]?.[0]} says`);
    return parseOtpUri(text);
  }
  return checkOtpKey({
    kind: said.counter === null ? "totp" : "hotp",
    issuer: said.issuer ?? "",
    label: said.label ?? name,
    secret: base32Key(text),
    algorithm: said.algorithm ?? "SHA1",
    digits: said.digits ?? 6,
    period: said.period ?? 30,
    counter: said.counter ?? 0,
  });
}

async function textBehind(ctx: Context, args: { qr: string | null; inFile: string | null }): Promise<string> {
  if (args.qr === null) {
    const value = await readValue(ctx, args.inFile, { message: "otpauth:// URI, or key in base32" });
    try {
      return decodeText(value).trim();
    } finally {
      wipe(value);
    }
  }
  const { PNG_LIMITS, readQrPng } = await import("../formats/qrimage.ts");
  const file = readSecretFile(args.qr, PNG_LIMITS.fileBytes + 1, "accept");
  try {
    return (await readQrPng(file)).trim();
  } finally {
    wipe(file);
  }
}

/** The secret of that name with its fields, or null. */
async function existing(client: KeyholdClient, name: string): Promise<Got | null> {
  try {
    return await client.get({ name, version: null, reveal: true, fresh: false, save: false });
  } catch (error) {
    if (error instanceof Fault && error.code === "not_found") return null;
    throw error;
  }
}

export const otpAdd = defineCommand({
  args: {
    name: {
      type: "positional",
      complete: "secret",
      description: "a new name, or a login that gets the one-time password",
      ask: "Name",
    },
    qr: { type: "string", hint: "FILE", description: "read the QR code in this PNG" },
    ...VALUE_ARGS,
    issuer: { type: "string", hint: "TEXT", description: "who asks for the codes (with a bare key)" },
    label: { type: "string", hint: "TEXT", description: "account that they are for (with a bare key)" },
    algorithm: { type: "enum", options: OTP_ALGORITHMS, description: "hash (with a bare key; default SHA1)" },
    digits: { type: "integer", min: 6, max: 10, description: "digits of a code (with a bare key; default 6)" },
    period: { type: "integer", min: 1, max: 86_400, description: "seconds a code is good for (default 30)" },
    counter: { type: "integer", min: 0, description: "count codes instead of seconds, from N (HOTP)" },
    replace: { type: "boolean", description: "replace the one-time password that is there" },
    ...WRITE_ARGS,
  },
  data: "{name, keyId, type, version, tags, where, field?}; never the key",
  details:
    "Takes the otpauth:// URI behind a service's QR code, or the key in base32: at a prompt, from a file, from stdin, " +
    "or out of a screenshot. On the name of a login it becomes that login's field `otp`.",
  examples: [
    ["keyhold otp add web/mail --qr screenshot.png", "from the picture that the service shows"],
    ["keyhold otp add web/mail", "by typing or pasting the key"],
    ["keyhold otp add token/7 --counter 0 --in-file key.txt", "codes that are counted (HOTP)"],
  ],
  run: async (args, ctx) => {
    const { issuer, label, algorithm, digits, period, counter } = args;
    const text = await textBehind(ctx, args);
    const key = keyOf(text, { issuer, label, algorithm, digits, period, counter }, args.name);
    try {
      const uri = otpUri(key);
      return await withClient(ctx, async (client) => {
        const known = await existing(client, args.name);
        wipe(known?.value ?? undefined);
        const where = (await ctx.settings()).get("store", args.store) as "server" | "local" | "both" | null;
        const base = {
          name: known?.info.name ?? args.name,
          tags: args.tag,
          where,
          ifVersion: known?.info.version ?? 0,
        };
        const own = known === null || known.info.type === "totp" || known.info.type === "hotp";
        const there = own ? known !== null : known.fields?.some(({ kind }) => kind === "otp");
        if (there && !args.replace) {
          throw new Fault("exists", "there is a one-time password already", { hint: "use --replace, or another name" });
        }
        const value = new TextEncoder().encode(uri);
        try {
          const storing = own
            ? client.store({ ...base, type: key.kind, value })
            : client.store({ ...base, type: null, value: null, fields: withOtp(known.fields ?? [], uri) });
          const { info, requestId, queued } = await ctx.term.step("Storing", storing);
          const data = { ...writtenData(info), ...(own ? {} : { field: "otp" }), ...(queued ? { queued } : {}) };
          return result(data, () => writtenLine(info), { requestId, exit: queued ? 10 : 0 });
        } finally {
          wipe(value);
        }
      });
    } finally {
      wipe(key.secret);
    }
  },
});

function withOtp(fields: readonly Field[], uri: string): readonly Field[] {
  const field: Field = { name: "otp", kind: "otp", value: uri };
  const others = fields.filter(({ kind, name }) => kind !== "otp" && name !== "otp");
  return [...others, field];
}

function validity({ expiresAt }: OtpCode): string {
  if (expiresAt === null) return "this code is used up: the next one is another";
  return `good for ${Math.max(0, Math.ceil((Date.parse(expiresAt) - Date.now()) / 1_000))} s`;
}

export const otpCodeCommand = defineCommand({
  args: {
    ...SECRET_ARG,
    copy: { type: "boolean", description: "put the code on the clipboard instead" },
    clearAfter: { type: "duration", description: "when the clipboard is cleared (default 30s; 0 never)" },
    fresh: { type: "boolean", description: "insist on the server's answer" },
  },
  data: "{name, code, expiresAt?, periodS?}; with --copy without the code, unless it could not be copied (exit 10)",
  details:
    "Prints the code of now, or of the next counter. A counter is stored before its code is shown, so no code is shown " +
    "twice; only while the server is away, another device may show the same one.",
  examples: [
    ["keyhold otp code web/mail", "the code, and how long it is good for"],
    ["keyhold otp code web/mail --copy", "onto the clipboard"],
  ],
  run: async (args, ctx) => {
    if (args.copy) demandClipboard(ctx);
    return withClient(ctx, async (client) => {
      const shown = await ctx.term.step("Retrieving", client.otp({ name: args.name, fresh: args.fresh }));
      const { name, code, expiresAt, periodS, requestId, queued } = shown;
      const exit = queued ? 10 : 0;
      const about = {
        name,
        ...(expiresAt === null ? {} : { expiresAt, periodS }),
        ...(queued ? { queued } : {}),
      };
      if (!args.copy) {
        ctx.out.notice(validity(shown));
        return result({ ...about, code }, () => code, { requestId, exit, bare: true });
      }
      const whole = { ...about, code };
      const said = validity(shown);
      return copyCode(ctx, { value: code, about, whole, said, clearAfter: args.clearAfter, requestId, exit });
    });
  },
});

export const otpQr = defineCommand({
  args: {
    ...SECRET_ARG,
    out: { type: "string", hint: "FILE", description: "write a PNG to a new file, 0600, instead" },
    invert: { type: "boolean", description: "for a terminal with dark text on a light ground" },
    fresh: { type: "boolean", description: "insist on the server's answer" },
  },
  data: "{name, otpauth}; with --out {name, out}",
  details:
    "Shows the one-time password as a QR code, to set up another authenticator. Whoever sees it can make every code " +
    "that follows.",
  examples: [
    ["keyhold otp qr web/mail", "in the terminal"],
    ["keyhold otp qr web/mail --out code.png", "as a picture"],
  ],
  run: async (args, ctx) =>
    withClient(ctx, async (client) => {
      const asking = client.get({ name: args.name, version: null, reveal: true, fresh: args.fresh, save: false });
      const got = await ctx.term.step("Retrieving", asking);
      const { info, value, fields, requestId } = got;
      try {
        const own = info.type === "totp" || info.type === "hotp";
        const uri = own ? decodeText(value ?? new Uint8Array(0)) : fields?.find(({ kind }) => kind === "otp")?.value;
        if (uri === undefined) {
          throw new Fault("not_found", `${plain(info.name)} has no one-time password`, {
            hint: "keyhold otp add NAME gives it one",
          });
        }
        const { qrLines, qrPng } = await import("../ui/qrcode.ts");
        if (args.out === null) {
          const how = { width: ctx.out.width, invert: args.invert, otherwise: "use --out FILE" };
          const lines = ctx.flags.json ? "" : await qrLines(uri, how);
          return result({ name: info.name, otpauth: uri }, () => lines, { requestId });
        }
        const png = await qrPng(uri);
        try {
          writeNewFile(args.out, png);
        } finally {
          wipe(png);
        }
        const said = `the QR code of ${plain(info.name)} is in ${plain(args.out)}: delete it after use`;
        return result({ name: info.name, out: args.out }, () => said, { requestId });
      } finally {
        wipe(value ?? undefined);
      }
    }),
});
