import { SIGNATURE_SCHEMES } from "../crypto/schemes.ts";
import { Fault } from "../errors.ts";
import type { PlainItem } from "../formats/item.ts";
import type { RequestId, SessionId } from "../ids.ts";
import { FIELD_KINDS, type Field } from "../protocol/content.ts";
import { DEFAULTS } from "../protocol/defaults.ts";
import { FACTOR } from "../protocol/factor.ts";
import { SECRET_TYPES } from "../protocol/secrettype.ts";
import { bool, list, nullable, oneOf, text, u53, uint } from "../wire/codec.ts";
import { data, idOf, many, maybe, or, orNull, params, type Reader } from "./agentparams.ts";
import { type Row, row, type Touched } from "./agentrow.ts";
import type {
  AuditQuery,
  FileBegin,
  FileOpen,
  GenerateInput,
  GetInput,
  KeyholdClient,
  ListInput,
  ReportInput,
  StoreInput,
  Where,
} from "./api.ts";
import { CEREMONY_ROWS } from "./ceremony/agentrows.ts";
import { FEDERATION_ROWS } from "./federation/agentrows.ts";
import type { UnwrapInput } from "./filekey.ts";
import { KEYRING_ROWS } from "./keyring/agentrows.ts";
import type { SignInput } from "./signing.ts";

/** Version of the agent's API (docs/agent.md): it grows only when something that worked no longer does. */
export const AGENT_API = 1;

/** Texts and lists are bounded here so that nothing is endless; what they may hold the client itself checks. */
const word = text({ max: 2_048 });
const date = text({ max: 64 });
const cursor = nullable(text({ max: 4_096 }));
const handle = text({ min: 32, max: 32 });
const version = uint(0xffff_ffff, 1);
const where = nullable(oneOf(["server", "local", "both"])) as Reader<Where | null>;
const type = oneOf(SECRET_TYPES);
const tags = list(word, { max: 4 * DEFAULTS.tags });
const ITEMS_MAX = 100_000;
/** As typed. */
const factorCode = text({ min: 1, max: 64 });

const fields = many(
  params<Field>({ name: word, kind: oneOf(FIELD_KINDS), value: text({ max: 2 * DEFAULTS.secretBytes }) }),
  4 * DEFAULTS.fields,
);
const item = params<PlainItem>({
  name: word,
  type,
  value: data,
  tags: or(tags, []),
  createdAt: or(nullable(date), null),
  fields: maybe(fields),
  expiresAt: maybe(nullable(date)),
  origin: maybe(word),
});
/** Words of one line of a file's header, and what follows it. */
const stanza = params<UnwrapInput["stanzas"][number]>({ args: list(word, { max: 64 }), body: data });
const STANZAS_MAX = 1_024;
const nothing = params<object>({});

type Calls = Omit<KeyholdClient, "close">;
/** Methods of the client API that the agent serves; `close` ends a caller's use, not the agent. */
export type AgentMethod = keyof Calls;
type InputOf<M extends AgentMethod> = Parameters<Calls[M]> extends [infer I] ? I : object;

/** What each method of the client API takes through the agent (docs/agent.md). */
export const AGENT_METHODS: { readonly [M in AgentMethod]: Row<InputOf<M>> } = {
  generate: row(
    params<GenerateInput>({
      name: word,
      type,
      length: or(nullable(uint()), null),
      tags: or(tags, []),
      fields: maybe(fields),
      expiresAt: maybe(nullable(date)),
      replace: or(bool, false),
      where: or(where, null),
    }),
  ),
  store: row(
    params<StoreInput>({
      name: word,
      type: or(nullable(type), null),
      value: orNull(data),
      tags: or(tags, []),
      fields: maybe(fields),
      expiresAt: maybe(nullable(date)),
      ifVersion: maybe(uint()),
      where: or(where, null),
      origin: maybe(word),
    }),
  ),
  get: row(
    params<GetInput>({
      name: word,
      version: or(nullable(version), null),
      reveal: or(bool, false),
      fresh: or(bool, false),
      save: or(bool, false),
    }),
    ({ name, reveal }) => (reveal ? [name] : []),
  ),
  getMany: row(
    params<InputOf<"getMany">>({
      refs: many(params({ name: word, version: or(nullable(version), null) }), ITEMS_MAX),
      fresh: or(bool, false),
      purpose: or(oneOf(["get", "export"]), "get"),
    }),
    ({ refs }) => refs.map(({ name }) => name),
  ),
  sign: row(
    params<SignInput>({
      name: word,
      version: or(nullable(version), null),
      message: data,
      scheme: or(nullable(oneOf(SIGNATURE_SCHEMES)), null),
      prehashed: maybe(bool),
      hedge: maybe(nullable(word)),
    }),
    ({ name, hedge }) => (hedge ? [name, hedge] : [name]),
  ),
  unwrapFileKey: row(
    params<UnwrapInput>({
      name: word,
      version: or(nullable(version), null),
      stanzas: many(stanza, STANZAS_MAX),
    }),
    ({ name }) => [name],
  ),
  otp: row(params<InputOf<"otp">>({ name: word, fresh: or(bool, false) }), ({ name }) => [name]),
  list: row(
    params<ListInput>({
      prefix: or(nullable(word), null),
      search: or(nullable(word), null),
      tag: or(nullable(word), null),
      fresh: or(bool, false),
      limit: maybe(nullable(uint(0xffff_ffff, 1))),
      cursor: maybe(cursor),
      passive: maybe(bool),
    }),
    () => [],
    ({ passive }) => passive !== true,
  ),
  history: row(params<InputOf<"history">>({ name: word })),
  restore: row(params<InputOf<"restore">>({ name: word, version })),
  // under its new name it might be read without a question
  rename: row(params<InputOf<"rename">>({ from: word, to: word }), ({ from }) => [from]),
  tag: row(params<InputOf<"tag">>({ name: word, add: or(tags, []), remove: or(tags, []) })),
  remove: row(params<InputOf<"remove">>({ name: word, purge: or(bool, false) })),
  importItems: row(
    params<InputOf<"importItems">>({
      items: many(item, ITEMS_MAX),
      prefix: or(word, ""),
      dryRun: or(bool, false),
      origin: text({ max: 64 }),
      where: or(where, null),
    }),
    // it tells whether a value is the one that is given
    ({ items, prefix }) => items.map(({ name }) => `${prefix}${name}`),
  ),
  fileBegin: row(
    params<FileBegin>({
      name: word,
      tags: or(tags, []),
      fields: maybe(fields),
      expiresAt: maybe(nullable(date)),
      ifVersion: maybe(uint()),
      size: or(nullable(uint()), null),
      where: or(where, null),
      origin: maybe(text({ min: 1, max: 55 })),
      createdAt: maybe(nullable(date)),
    }),
  ),
  fileAppend: row(params<InputOf<"fileAppend">>({ handle, value: data })),
  fileFinish: row(params<InputOf<"fileFinish">>({ handle })),
  fileAbort: row(params<InputOf<"fileAbort">>({ handle })),
  fileOpen: row(
    params<FileOpen>({
      name: word,
      version: or(nullable(version), null),
      fresh: or(bool, false),
      purpose: or(oneOf(["get", "export"]), "get"),
    }),
    ({ name }) => [name],
  ),
  // whoever has the handle was let through when it was opened
  fileRead: row(params<InputOf<"fileRead">>({ handle })),
  // it tells which values are equal
  report: row(params<ReportInput>({ oldDays: or(nullable(uint()), null), fresh: or(bool, false) }), () => "account"),
  auditList: row(
    params<AuditQuery>({
      name: or(nullable(word), null),
      action: or(nullable(word), null),
      fromMs: or(nullable(u53), null),
      untilMs: or(nullable(u53), null),
      requestId: or(orNull(idOf<RequestId>()), null),
      limit: or(nullable(uint()), null),
      cursor: or(cursor, null),
      purpose: or(oneOf(["list", "export"]), "list"),
    }),
  ),
  auditVerify: row(nothing),
  auditExport: row(params<InputOf<"auditExport">>({ cursor: or(cursor, null) })),
  sessions: row(nothing),
  closeSession: row(
    params<InputOf<"closeSession">>({ sessionId: or(orNull(idOf<SessionId>()), null), all: or(bool, false) }),
  ),
  devices: row(nothing),
  // the new device will have everything
  linkDevice: row(nothing, () => "account"),
  factor: row(nothing),
  // who can do it may shut the owner out, or let another one in
  enableFactor: row(
    params<InputOf<"enableFactor">>({
      key: data,
      code: factorCode,
      recovery: list(factorCode, { max: FACTOR.recoveryCodes }),
      proof: or(nullable(factorCode), null),
    }),
    () => "account",
  ),
  renewFactorCodes: row(
    params<InputOf<"renewFactorCodes">>({ proof: or(nullable(factorCode), null) }),
    () => "account",
  ),
  disableFactor: row(params<InputOf<"disableFactor">>({ proof: or(nullable(factorCode), null) }), () => "account"),
  sync: row(nothing),
  keepCopies: row(nothing),
  status: row(
    nothing,
    () => [],
    () => false,
  ),
  ...FEDERATION_ROWS,
  ...KEYRING_ROWS,
  ...CEREMONY_ROWS,
};

/** Methods of the agent itself. */
export const OWN_METHODS = ["agent.hello", "agent.status", "agent.lock"] as const;

/** Every method by name, as `agent.hello` tells them. */
export function agentMethods(): readonly string[] {
  return [...OWN_METHODS, ...Object.keys(AGENT_METHODS)].sort();
}

/** Why a call was refused whose params do not fit: it says so in `why`, which a client of another version looks for. */
export const PARAMS_REFUSED = "docs/agent.md says what this method takes";

/** A method's row with its params read. @throws Fault unsupported, bad_input */
export function readCall(
  method: string,
  given: unknown,
): { readonly method: AgentMethod; readonly input: unknown; readonly touched: Touched; readonly use: boolean } {
  if (!Object.hasOwn(AGENT_METHODS, method)) {
    throw new Fault("unsupported", "the agent has no such method", { hint: "agent.hello lists the methods" });
  }
  const known = method as AgentMethod;
  const found = AGENT_METHODS[known] as Row<unknown>;
  const input = fitting(() => found.params.decode(given, "params"));
  return { method: known, input, touched: found.touches(input), use: found.use(input) };
}

/** Reads the params of a method that takes none. @throws Fault bad_input */
export function readNothing(given: unknown): void {
  fitting(() => nothing.decode(given, "params"));
}

function fitting<T>(read: () => T): T {
  try {
    return read();
  } catch (error) {
    if (!(error instanceof Fault)) throw error;
    throw new Fault("bad_input", error.message, { why: PARAMS_REFUSED });
  }
}
