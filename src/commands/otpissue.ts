import type { KeyholdClient } from "../client/api.ts";
import { isIdPart } from "../client/ceremony/books.ts";
import type { OtpEntryInfo, OtpRequester } from "../client/ceremonyapi.ts";
import { Fault } from "../errors.ts";
import { movedKeyIdOf } from "../protocol/ceremony/records.ts";
import { parseDuration, parseTime, type Values } from "../ui/args.ts";
import { type Context, defineCommand } from "../ui/command.ts";
import { OUT_FILE_ARGS, outFile, putFile } from "../ui/outfile.ts";
import { listing, type Result, result } from "../ui/output.ts";
import { readSecretFile } from "../ui/password.ts";
import { withClient } from "../ui/session.ts";
import { plain } from "../ui/text.ts";
import { decodeJson } from "../wire/codec.ts";
import { parcel } from "../wire/otp/operations.ts";
import { OTP_SPEC_ARGS, outputOf } from "./ceremonyoutput.ts";
import { serverPlace } from "./federation.ts";
import { ENTRY_DATA, entryLines, OTP_KEY, requesterText } from "./otpshown.ts";

const ARGS = {
  name: {
    type: "positional",
    description: "a key of the server's store (of a ceremony), or a new one",
    ask: "Name of the key",
  },
  output: { type: "enum", options: ["totp", "hotp"], description: "draw a new one in the store, of this kind" },
  ...OTP_SPEC_ARGS,
  from: { type: "string", hint: "SECRET", description: "put this one-time password of the vault into the store" },
  to: { type: "list", hint: "ACCOUNT", description: "an account that may ask for codes (repeat)" },
  toDevice: { type: "list", hint: "HEX", description: "a device that may, by its key: keyhold otp device (repeat)" },
  provision: { type: "boolean", description: "they may have the key itself, for an authenticator, instead of codes" },
  perHour: { type: "integer", min: 1, max: 100_000, description: "codes that each of them gets in an hour at most" },
  until: {
    type: "string",
    hint: "WHEN",
    description: "they may ask until then: a date, a time, or a duration from now",
  },
  at: {
    type: "string",
    hint: "URL#PIN",
    description: "write a parcel for that server, and move the key there for good",
  },
  ...OUT_FILE_ARGS,
  out: { type: "string", hint: "FILE", description: "with --at: the parcel's file (default NAME.parcel)" },
} as const;
type Given = Values<typeof ARGS>;

/** A moment that is to come. @throws Fault usage */
export function untilOf(text: string | null, nowMs: number): number | null {
  if (text === null) return null;
  const span = parseDuration(text);
  const at = span !== null ? nowMs + span : /^\d{4}-/.test(text) ? parseTime(text, nowMs) : null;
  if (at !== null && at > nowMs) return at;
  throw new Fault("usage", `--until takes a time to come, like 30d, 2030-01-31 or 2030-01-31T12:00:00Z, not "${text}"`);
}

function requestersOf({ to, toDevice }: Given): readonly OtpRequester[] {
  const devices = toDevice.map((name): OtpRequester => {
    if (/^[0-9a-fA-F]{64}$/.test(name)) return { kind: "device", name: name.toLowerCase() };
    throw new Fault("usage", "--to-device takes a key of 64 hex digits", {
      hint: "its owner sees it by: keyhold otp device",
    });
  });
  return [...to.map((name): OtpRequester => ({ kind: "account", name })), ...devices];
}

/** Refuses flags that do not go together. @throws Fault usage */
function demandSense(args: Given): void {
  const { output, from, at, algorithm, digits, period, issuer, label } = args;
  if (output !== null && from !== null) throw new Fault("usage", "--output and --from exclude each other");
  const spec = { algorithm, digits, period, issuer, label };
  const said = Object.entries(spec).find(([, value]) => value !== null);
  if (output === null && said) throw new Fault("usage", `--${said[0]} goes with --output totp or --output hotp`);
  const granting = args.to.length > 0 || args.toDevice.length > 0;
  if (!granting && (args.provision || args.perHour !== null || args.until !== null)) {
    throw new Fault("usage", "say to whom: --to ACCOUNT or --to-device HEX");
  }
  if (at === null && (args.out !== null || args.mode !== null || args.force))
    throw new Fault("usage", "--out goes with --at");
  if (at !== null && granting) {
    throw new Fault("usage", "--at moves the key away: say who may ask at the other server", {
      hint: "keyhold otp receive FILE there, then: keyhold otp issue NAME --to ACCOUNT",
    });
  }
}

/** The only one of those that a name or the beginning of an id means. @throws Fault ambiguous */
function only(name: string, found: readonly OtpEntryInfo[]): OtpEntryInfo | null {
  const [one, another] = found;
  if (one === undefined || another === undefined) return one ?? null;
  throw new Fault("ambiguous", `more than one key of yours is called "${name}"`, {
    why: found.map(({ keyId }) => keyId).join(", "),
    hint: "give the beginning of its id",
  });
}

/** The key of this name, of several the one in use; or of an id, or the beginning of one. @throws Fault ambiguous */
async function existing(client: KeyholdClient, { name, at }: Given, making: boolean): Promise<OtpEntryInfo | null> {
  const own = (await client.otpEntries()).filter((one) => one.own);
  const called = own.filter((one) => one.name === name);
  const [active = [], moved = []] = (["active", "moved"] as const).map((wanted) =>
    called.filter(({ status }) => status === wanted),
  );
  if (making) return active[0] ?? null;
  if (called.length === 0) return only(name, isIdPart(name) ? own.filter(({ keyId }) => keyId.startsWith(name)) : []);
  if (active.length > 0) return only(name, active);
  // of those that are over it does not matter which one is told of, but which one is sent once more
  return at !== null && moved.length > 0 ? only(name, moved) : (moved[0] ?? called[0] ?? null);
}

/** Refuses to hand out a key that is over. @throws Fault conflict */
function demandHere({ name, status, movedTo }: OtpEntryInfo, moving: boolean): void {
  if (status === "active" || (status === "moved" && moving)) return;
  const over = status === "moved" ? `is at another server now, with pin ${movedTo ?? ""}` : "was revoked";
  throw new Fault("conflict", `the key "${name}" ${over}`, {
    hint: `its name is free for a new one: keyhold otp issue ${plain(name)} --output totp|hotp, or --from SECRET`,
  });
}

async function made(ctx: Context, client: KeyholdClient, args: Given): Promise<OtpEntryInfo> {
  const { name, output, from } = args;
  const making = output !== null || from !== null;
  const known = await existing(client, args, making);
  // the name of a key that is over is free again
  if (known?.status === "active" && making) {
    throw new Fault("exists", `the store has a key "${name}" already`, {
      hint: "leave out --output and --from, or choose another name",
    });
  }
  if (known && !making) {
    demandHere(known, args.at !== null);
    return known;
  }
  if (!making) {
    throw new Fault("not_found", `the server's store has no key "${name}" of yours`, {
      hint: "make it: --output totp, --from SECRET, or keyhold ceremony open NAME --output totp",
    });
  }
  const none = { bytes: null, bits: null, words: null, threshold: null, network: null };
  const spec = output === null ? null : outputOf(output, { ...args, ...none }, name, 0);
  if (spec !== null && spec.kind !== "totp" && spec.kind !== "hotp")
    throw new Fault("usage", "--output takes totp or hotp");
  return ctx.term.step("Putting it into the store", client.otpCreate({ name, output: spec, from }));
}

async function send(ctx: Context, client: KeyholdClient, args: Given, at: string): Promise<Result> {
  const server = serverPlace(at);
  const out = outFile({ ...args, out: args.out ?? `${args.name.replaceAll(/[^\w.-]/g, "_")}.parcel` });
  if (out === null) throw new Fault("usage", "--out takes the name of a file");
  const { keyId, name } = await made(ctx, client, args);
  await ctx.term.confirm(`Move ${plain(name)} to ${plain(server.url)} for good? No code is handed out here any more.`);
  const sealed = await ctx.term.step("Sealing it to that server", client.otpSend({ key: keyId, server }));
  putFile(out, sealed);
  const keyIdThere = idThere(sealed);
  const data = { keyId, name, to: server.url, out: out.path, ...(keyIdThere !== null && { keyIdThere }) };
  return result(data, () =>
    [
      `the parcel is in ${plain(out.path)}: only ${plain(server.url)} can open it`,
      `There: keyhold otp receive ${plain(out.path)}, then say anew who may ask`,
      ...(keyIdThere === null
        ? []
        : [`Tell devices: keyhold otp request ${keyIdThere} --server ${plain(server.url)} --pin ${server.pin}`]),
    ].join("\n"),
  );
}

/** The id that a parcel's key has at its destination; null for what is no parcel. */
function idThere(bytes: Uint8Array): string | null {
  try {
    const { to, record } = decodeJson(parcel, bytes);
    return movedKeyIdOf(to.key.enclave, record);
  } catch (error) {
    if (error instanceof Fault) return null;
    throw error;
  }
}

/** Whom nobody asks about: the server tells no account's name to others. */
function nameNotice(requesters: readonly OtpRequester[]): string | null {
  const names = requesters.flatMap(({ kind, name }) => (kind === "account" ? [plain(name)] : []));
  if (names.length === 0) return null;
  return `a server tells nobody who has an account: be sure that ${names.join(", ")} ${names.length === 1 ? "is" : "are"} spelt right, since the first account of a name gets what is issued to it`;
}

export const otpIssue = defineCommand({
  args: ARGS,
  data: `${ENTRY_DATA}; with --at {keyId, name, to, out, keyIdThere}`,
  details: `Lets others have one-time codes of a key that the server keeps sealed: of a ceremony (\`--output totp\` there), drawn in the
store, or brought from the vault. Whoever may ask gets a code at a time, sealed to that one request, and good once.`,
  examples: [
    ["keyhold otp issue door-code --output hotp --to ben --per-hour 10", "a new key, and who may ask"],
    [
      "keyhold otp issue mail --from web/mail --to-device 8139770ea87d175f56a35466c34c7ecccb8d8a91b4ee37a25df60f5b8fc9b394",
      "for a device without an account",
    ],
    [
      "keyhold otp issue door-code --at https://codes.example:7443#sha256:tm3Ifp5jqGxjGvKX0j8hQhJ7JZp2ZkQ0c2h6m8m6x5c --yes",
      "hand it out from another server",
    ],
  ],
  run: async (args, ctx) => {
    demandSense(args);
    const requesters = requestersOf(args);
    const untilMs = untilOf(args.until, Date.now());
    if (args.at !== null) serverPlace(args.at);
    return withClient(ctx, async (client) => {
      if (args.at !== null) return send(ctx, client, args, args.at);
      let entry = await made(ctx, client, args);
      for (const to of requesters) {
        const wants = args.provision ? (["provision"] as const) : (["code"] as const);
        entry = await client.otpGrant({ key: entry.keyId, to, wants, perHour: args.perHour, untilMs });
      }
      const notice = nameNotice(requesters);
      if (notice !== null && !ctx.flags.json) ctx.out.notice(notice);
      return result(entry, () => entryLines(entry));
    });
  },
});

const PARCEL_MAX = 64 * 1_024;

export const otpReceive = defineCommand({
  args: {
    file: {
      type: "positional",
      hint: "FILE",
      description: "the parcel that `keyhold otp issue --at` wrote",
      ask: "File of the parcel",
    },
  },
  data: ENTRY_DATA,
  details:
    "Brings a key from another server's store into that of this profile's server. The parcel is sealed to that server alone, and is taken once.",
  examples: [
    ["keyhold otp receive door-code.parcel --profile codes", "then: keyhold otp issue door-code --to ACCOUNT"],
  ],
  run: async ({ file }, ctx) => {
    const bytes = readSecretFile(file, PARCEL_MAX + 1, "accept");
    if (bytes.length > PARCEL_MAX) throw new Fault("bad_input", "that is no parcel");
    return withClient(ctx, async (client) => {
      const entry = await ctx.term.step("Handing it over", client.otpReceive({ parcel: bytes }));
      return result(entry, () => entryLines(entry));
    });
  },
});

export const otpEntries = defineCommand({
  list: true,
  args: {},
  data: `{items:[${ENTRY_DATA}], next}`,
  examples: [["keyhold otp entries", "keys of which you hand out codes, or may ask for some"]],
  run: async (_args, ctx) =>
    withClient(ctx, async (client) => {
      const items = await client.otpEntries();
      const cells = items.map((one) => [
        one.name,
        one.keyId.slice(0, 16),
        one.kind,
        one.status,
        one.own ? "issuer" : `requester${one.issuer === null ? "" : `, of ${one.issuer}`}`,
        one.own
          ? one.grants.map(({ to }) => requesterText(to)).join(", ")
          : one.movedTo !== null
            ? `at ${one.movedTo}`
            : [...new Set(one.grants.flatMap(({ wants }) => wants))].join(", "),
      ]);
      return listing({ items, next: null }, { heads: ["NAME", "KEY", "KIND", "STATUS", "YOU ARE", "FOR"], cells });
    }),
});

export const otpHandouts = defineCommand({
  list: true,
  args: { name: OTP_KEY },
  data: "{items:[{askId, to: {kind, name}, want, state, at, expiresAt, usedAt}], next}",
  details: "Every code that was handed out, and what became of it; never the codes.",
  examples: [["keyhold otp handouts door-code", "who got codes, and which were used"]],
  run: async ({ name }, ctx) =>
    withClient(ctx, async (client) => {
      const items = await client.otpHandouts({ key: name });
      const cells = items.map((one) => [
        one.askId.slice(0, 16),
        requesterText(one.to),
        one.want,
        one.state,
        one.at,
        one.usedAt ?? "",
      ]);
      return listing({ items, next: null }, { heads: ["HAND-OUT", "TO", "WHAT", "STATE", "AT", "USED"], cells });
    }),
});

export const otpRevoke = defineCommand({
  args: {
    name: OTP_KEY,
    grant: { type: "string", hint: "ID", description: "only what this requester may" },
    handout: { type: "string", hint: "ID", description: "only this code" },
  },
  data: ENTRY_DATA,
  details:
    "Without --grant or --handout the whole key: no code of it is handed out or accepted any more. An id may be shortened.",
  examples: [
    ["keyhold otp revoke door-code --yes", "the key, for good"],
    ["keyhold otp revoke door-code --handout 9c1e44a0 --yes", "one code that went astray"],
  ],
  run: async ({ name, grant, handout }, ctx) => {
    if (grant !== null && handout !== null) throw new Fault("usage", "--grant and --handout exclude each other");
    return withClient(ctx, async (client) => {
      const of = plain(name);
      const what =
        handout !== null
          ? `the code ${plain(handout)} of ${of}`
          : grant !== null
            ? `the grant ${plain(grant)} of ${of}`
            : `${of}, for everybody and for good`;
      const [grantId, askId] = await Promise.all([
        whole(grant, "grant", async () =>
          (await client.otpEntries())
            .filter((one) => one.own && isOf(one, name))
            .flatMap(({ grants }) => grants.map((g) => g.grantId)),
        ),
        whole(handout, "hand-out", async () => (await client.otpHandouts({ key: name })).map((one) => one.askId)),
      ]);
      await ctx.term.confirm(`Revoke ${what}?`);
      const entry = await client.otpRevoke({ key: name, grantId, askId });
      return result(entry, () => entryLines(entry));
    });
  },
});

const isOf = ({ name, keyId }: OtpEntryInfo, text: string): boolean => name === text || keyId.startsWith(text);

/** The id that begins so. @throws Fault not_found, ambiguous */
async function whole(text: string | null, what: string, all: () => Promise<readonly string[]>): Promise<string | null> {
  if (text === null) return null;
  const [one, another] = (await all()).filter((id) => id.startsWith(text.toLowerCase()));
  if (one !== undefined && another === undefined) return one;
  throw new Fault(
    one === undefined ? "not_found" : "ambiguous",
    `${one === undefined ? "no" : "more than one"} ${what} begins with "${text}"`,
  );
}

export const otpDevice = defineCommand({
  args: {},
  data: "{keyHex, words}",
  details:
    "The key by which distribution servers know this vault where it has no account. Tell it to who issues the codes, and compare the words.",
  examples: [["keyhold otp device", "for: keyhold otp issue NAME --to-device HEX"]],
  run: async (_args, ctx) =>
    withClient(ctx, async (client) => {
      const device = await client.otpDevice();
      return result(device, () => `${device.keyHex}\n${device.words.join(" ")}   (compare them aloud)`);
    }),
});
