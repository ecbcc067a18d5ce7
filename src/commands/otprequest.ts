import type { KeyholdClient } from "../client/api.ts";
import type { OtpHanded } from "../client/ceremonyapi.ts";
import { verifyByToken } from "../client/otpdistribution/verifying.ts";
import { wipe } from "../crypto/bytes.ts";
import { Fault } from "../errors.ts";
import { asHashId, type StoredKeyId } from "../ids.ts";
import { provisionedOrigin } from "../protocol/provenance.ts";
import { type Context, defineCommand } from "../ui/command.ts";
import { type Result, result } from "../ui/output.ts";
import { readSecretFile, readValue } from "../ui/password.ts";
import { surroundings, withClient } from "../ui/session.ts";
import { decodeText, plain } from "../ui/text.ts";
import { leftText } from "./ceremonyshown.ts";
import { copyCode, demandClipboard } from "./codecopy.ts";
import { OTP_KEY, requesterText, SERVER_ARGS, serverOf } from "./otpshown.ts";
import { writtenData, writtenLine } from "./secretargs.ts";

/** How long a code is good, for people. */
export function goodFor({ from, expiresAt }: Pick<OtpHanded, "from" | "expiresAt">, nowMs: number): string {
  const left = leftText(Date.parse(expiresAt) - nowMs);
  const wait = from === null ? 0 : Date.parse(from) - nowMs;
  return wait > 0 ? `good in ${leftText(wait)}, once, for ${left} from now` : `good once, for ${left}`;
}

async function hand(
  ctx: Context,
  handed: OtpHanded,
  args: { provision: boolean; copy: boolean; clearAfter: number | null },
) {
  const { value, ...about } = handed;
  // a key is good for good: what is over in minutes is its way here
  const said = args.provision
    ? "the whole key, for an authenticator: it is yours for good"
    : goodFor(handed, Date.now());
  if (args.copy) return copyCode(ctx, { value, about, whole: handed, said, clearAfter: args.clearAfter });
  ctx.out.notice(said);
  return result(handed, () => value, { bare: true });
}

export const otpRequest = defineCommand({
  args: {
    name: { ...OTP_KEY, description: "name or id of the key; at another server its id" },
    provision: {
      type: "boolean",
      description: "the key itself, for an authenticator: only one requester ever gets it",
    },
    ...SERVER_ARGS,
    qr: { type: "boolean", description: "with --provision: show it as a QR code, for a telephone" },
    invert: { type: "boolean", description: "with --qr: for a terminal with dark text on a light ground" },
    store: {
      type: "string",
      hint: "NAME",
      description: "with --provision: keep it in the vault, for keyhold otp code NAME",
    },
    copy: { type: "boolean", description: "put the code on the clipboard instead" },
    clearAfter: { type: "duration", description: "when the clipboard is cleared (default 30s; 0 never)" },
  },
  data: "{askId, keyId, name, value, expiresAt, from}; with --copy without the value, unless it could not be copied (exit 10); with --store {name, keyId, type, version, tags, where, custody}",
  details:
    "Asks the distribution server for one code. It is sealed to this one request, nobody else gets the same, and it is good once.",
  examples: [
    ["keyhold otp request door-code", "the bare code; how long it is good goes to stderr"],
    [
      "keyhold otp request 4f1c2a9b0d8139770ea87d175f56a35466c34c7ecccb8d8a91b4ee37a25df60f --server https://codes.example:7443 --pin sha256:…",
      "without an account, by this device's key",
    ],
    ["keyhold otp request door-code --provision --qr", "for an authenticator on a telephone"],
  ],
  run: async (args, ctx) => {
    const server = serverOf(args);
    if (!args.provision && (args.qr || args.store !== null))
      throw new Fault("usage", "--qr and --store go with --provision");
    if (args.invert && !args.qr) throw new Fault("usage", "--invert goes with --qr");
    if ([args.qr, args.store !== null, args.copy].filter(Boolean).length > 1) {
      throw new Fault("usage", "--qr, --store and --copy exclude each other");
    }
    if (args.copy) demandClipboard(ctx);
    return withClient(ctx, async (client) => {
      const want = args.provision ? "provision" : "code";
      const asking = client.otpRequest({ key: args.name, want, server });
      const handed = await ctx.term.step("Asking", asking);
      if (args.store !== null) {
        const value = new TextEncoder().encode(handed.value);
        const type = handed.value.startsWith("otpauth://hotp/") ? "hotp" : "totp";
        try {
          const { info, requestId } = await client.store({
            name: args.store,
            type,
            value,
            tags: [],
            where: null,
            ifVersion: 0,
            origin: provisionedOrigin(asHashId<StoredKeyId>(handed.keyId)),
          });
          return result(
            writtenData(info),
            () => `${writtenLine(info)}\nFor a code: keyhold otp code ${plain(info.name)}`,
            { requestId },
          );
        } finally {
          wipe(value);
        }
      }
      if (args.qr && !ctx.flags.json) {
        const { qrLines } = await import("../ui/qrcode.ts");
        // who has asked for the key gets it again
        const otherwise = "use --store NAME, then: keyhold otp qr NAME --out FILE";
        const lines = await qrLines(handed.value, { width: ctx.out.width, invert: args.invert, otherwise });
        return result(handed, () => lines);
      }
      return hand(ctx, handed, args);
    });
  },
});

const CODE_MAX = 64;

/** A code, or two of them with a space or a line's end between. @throws Fault bad_input */
export function codesIn(text: string, next: boolean): { readonly code: string; readonly next: string | null } {
  const words = text.trim().split(/\s+/);
  // people write 123 456 as it is shown to them
  const joined =
    !next && words.length === 2 && words.every((word) => /^\d{3,5}$/.test(word)) ? [words.join("")] : words;
  const [code = "", second] = joined;
  const fits = joined.length === (next ? 2 : 1) && joined.every((word) => /^\d{6,10}$/.test(word));
  if (fits) return { code, next: second ?? null };
  throw new Fault(
    "bad_input",
    next ? "two codes of 6 to 10 digits are needed, one after the other" : "a code has 6 to 10 digits",
  );
}

async function readCodes(ctx: Context, inFile: string | null, next: boolean) {
  const message = next ? "Two codes that follow each other, with a space between" : "Code";
  const value = await readValue(ctx, inFile, { message, maxBytes: CODE_MAX });
  try {
    return codesIn(decodeText(value), next);
  } finally {
    wipe(value);
  }
}

const REFUSED = {
  used: "this code was used before",
  expired: "this code is too old",
  revoked: "this code was revoked",
  unknown: "this is no code of this key",
} as const;

type Refusal = keyof typeof REFUSED;

/** What helps whose code was refused. @param tried Two codes were given, which finds a counter again. */
export function refusalHint(verdict: Refusal, kind: "totp" | "hotp" | null, tried: boolean): string {
  if (verdict === "unknown" && kind === "totp")
    return "an authenticator may go by a wrong clock; or ask for another code";
  if (verdict === "unknown" && !tried) return "an authenticator that counts may have gone ahead: --next";
  return "the requester asks for another code";
}

/** What a relying service learns: yes, or no. @throws Fault denied */
export function relyingAnswer(accepted: boolean): Result {
  if (accepted) return result({ accepted }, () => "accepted");
  throw new Fault("denied", "the code is not accepted", { hint: "ask for another code", data: { accepted } });
}

/** Kind of an own key, as far as it can be seen: advice alone depends on it. */
async function kindOf(client: Pick<KeyholdClient, "otpEntries">, key: string): Promise<"totp" | "hotp" | null> {
  try {
    const named = (await client.otpEntries()).filter(
      ({ own, name, keyId }) => own && (name === key || keyId.startsWith(key.toLowerCase())),
    );
    return (named.find(({ status }) => status === "active") ?? named[0])?.kind ?? null;
  } catch (error) {
    if (error instanceof Fault && error.code !== "interrupted") return null;
    throw error;
  }
}

export const otpVerify = defineCommand({
  args: {
    name: {
      type: "positional",
      required: false,
      description: "name or id of your key; with --token-file the token says it",
    },
    inFile: { type: "string", hint: "FILE", description: "read the code from FILE (- is stdin)" },
    next: {
      type: "boolean",
      description: "two codes that follow each other: an authenticator that counts is found again",
    },
    tokenFile: {
      type: "string",
      hint: "FILE",
      description: "verify as a relying service, by a token: yes or no alone",
    },
    ...SERVER_ARGS,
  },
  data: "{verdict, handedTo: {kind, name} | null}; with --token-file {accepted}; of a refused code the same in error.data",
  details: `The code is asked for, or read from a file or stdin; it never stands on the command line. An accepted code is used up. Exit 5
where it is refused: the issuer reads whether it was used, expired, revoked or unknown; a relying service learns no more
than no.`,
  examples: [
    ["keyhold otp verify door-code", "asks for the code"],
    [
      "keyhold otp verify --token-file door.token --server https://codes.example:7443 --pin sha256:… --in-file -",
      "a door that asks",
    ],
  ],
  run: async (args, ctx) => {
    const server = serverOf(args);
    if (args.tokenFile === null && server !== null) throw new Fault("usage", "--server and --pin go with --token-file");
    if (args.tokenFile !== null) {
      if (args.next) throw new Fault("usage", "--next is for the issuer alone");
      if (server === null) throw new Fault("usage", "--token-file needs --server URL and --pin PIN");
      const token = decodeText(readSecretFile(args.tokenFile, 4_096, "refuse")).trim();
      const { code } = await readCodes(ctx, args.inFile, false);
      const input = { server, token, code };
      // a relying service needs no vault: one that is there is left alone
      const { accepted } = await ctx.term.step("Verifying", verifyByToken(surroundings(ctx), input));
      return relyingAnswer(accepted);
    }
    const key = args.name ?? (await ctx.term.text(OTP_KEY.ask, { needed: "NAME", fix: "keyhold otp verify NAME" }));
    const codes = await readCodes(ctx, args.inFile, args.next);
    return withClient(ctx, async (client) => {
      const { verdict, handedTo } = await ctx.term.step("Verifying", client.otpCheck({ key, ...codes }));
      const to = handedTo === null ? "" : `handed to ${requesterText(handedTo)}`;
      if (verdict === "accepted") return result({ verdict, handedTo }, () => `accepted${to === "" ? "" : `: ${to}`}`);
      throw new Fault("denied", `${verdict}: ${REFUSED[verdict]}`, {
        ...(to !== "" && { why: to }),
        hint: refusalHint(verdict, verdict === "unknown" ? await kindOf(client, key) : null, args.next),
        data: { verdict, handedTo },
      });
    });
  },
});
