import { type ErrorCode, errorTable } from "../errors.ts";
import { type Codec, type Json, schemaOf } from "./codec.ts";
import { JSON_TYPE, OPERATION_PATH } from "./http.ts";
import { errorBody, operations, type TokenOperation } from "./operations.ts";

/** Operations that any HTTP client can make sense of: facts about a server, and what a token reads. */
type Described =
  | "server.statement"
  | "log.checkpoint"
  | "federation.info"
  | "keyring.info"
  | "ceremony.keys"
  | TokenOperation;

/** What each is for: the words of docs/protocol.md §1.5. */
const PURPOSE: { readonly [N in Described]: string } = {
  "server.statement": "signed facts about the server",
  "log.checkpoint": "newest checkpoint of the server-wide log",
  "federation.info": "enclave's keys, operator's policy, federations of this server",
  "keyring.info": "a registry's identity, sealing key and version",
  "integrator.workspace": "name, owners and credits of the token's workspace",
  "integrator.events": "what happened in the workspace, from a number on",
  "integrator.requests": "requests of the workspace, by status",
  "integrator.request": "one request: status, key, parties",
  "integrator.keys": "keys of the workspace, by keyring and type",
  "integrator.key": "one key",
  "integrator.address": "address of a key in a chain's format",
  "ceremony.keys": "key pairs of the server for ceremonies (§10.1)",
  "otp.verify": "accepts a one-time code, once",
};

const TAGS = [
  { name: "integrator", description: "What a program reads of one workspace with its token." },
  { name: "keyring", description: "The registry of workspaces and keyrings." },
  { name: "ceremony", description: "Keys that several people make together." },
  { name: "otp", description: "One-time codes of one key, for relying services with its token." },
  { name: "server", description: "The server itself." },
  { name: "log", description: "The server-wide log." },
  { name: "federation", description: "The server as a member of federations." },
];

/** Names of the security schemes: what a token opens. */
const SCHEMES = { integrator: "workspaceToken", otp: "otpToken" } as const;
const schemeOf = (name: TokenOperation): string => (name === "otp.verify" ? SCHEMES.otp : SCHEMES.integrator);
/**
 * One code for each status: what every operation may answer, and what those with a token may beside it. A relying
 * service is told of nothing that is not there: its code is not accepted.
 */
const ERRORS = ["bad_input", "too_large", "unsupported", "rate_limited", "internal", "unavailable", "storage"] as const;
const TOKEN_ERRORS = ["session_invalid", "not_found"] as const;
const RELYING_ERRORS = ["session_invalid"] as const;
type Shown = (typeof ERRORS)[number] | (typeof TOKEN_ERRORS)[number];

const MEANING: { readonly [C in Shown]: string } = {
  bad_input: "The body is not in the documented form.",
  too_large: "The request is too large.",
  unsupported: "The content type is not application/json, or the server does not have this role.",
  rate_limited: "Too many attempts: wait as long as Retry-After says.",
  internal: "The server failed.",
  unavailable: "The server is busy or stopping: try again after Retry-After.",
  storage: "The server cannot write.",
  session_invalid:
    "The token is unknown, expired or revoked, or what it is for is no longer its maker's: one answer for all.",
  not_found: "The workspace has no such request or key.",
};

const DESCRIPTION =
  `Operations of a keyhold server that any HTTP client can call: JSON over TLS 1.3, always POST. Ids and keys are
hexadecimal, other bytes base64url without padding, times milliseconds since 1970. Every field is required; what may be left
out is null; unknown fields are refused. The server's certificate is signed by its own authority, which is pinned: see
docs/integrators.md. All other operations are listed under x-keyhold-client-only and not described: their bodies are frames
sealed with the keys of a session, which begins with OPAQUE (RFC 9807), or steps of such a protocol; a call without keyhold's
client would prove nothing and be refused.`.replaceAll("\n", " ");

const isDescribed = (name: string): name is Described => Object.hasOwn(PURPOSE, name);

/** `integrator.events` as `integratorEvents`. */
const idOf = (name: string): string => name.replace(/\.(\w)/g, (_, letter: string) => letter.toUpperCase());

const statusOf = (code: ErrorCode): number => errorTable().find((row) => row.code === code)?.http ?? 500;

function jsonOf(codec: Codec<unknown>): Json {
  return { [JSON_TYPE]: { schema: plain(schemaOf(codec)) } };
}

const plain = (schema: object): Json => JSON.parse(JSON.stringify(schema)) as Json;

function errorResponses(codes: readonly Shown[]): Readonly<Record<string, Json>> {
  const known = codes.map((code) => [String(statusOf(code)), { $ref: `#/components/responses/${code}` }] as const);
  return { ...Object.fromEntries(known), default: { $ref: "#/components/responses/error" } };
}

function operationOf(name: Described): Json {
  const { auth, input, output } = operations[name];
  const token = auth === "token" ? (name as TokenOperation) : null;
  const more = name === "otp.verify" ? RELYING_ERRORS : token ? TOKEN_ERRORS : [];
  return {
    operationId: idOf(name),
    summary: PURPOSE[name],
    tags: [name.split(".", 1)[0] ?? ""],
    security: token ? [{ [schemeOf(token)]: [] }] : [],
    requestBody: { required: true, content: jsonOf(input as Codec<unknown>) },
    responses: {
      "200": { description: "Done.", content: jsonOf(output as Codec<unknown>) },
      ...errorResponses([...ERRORS, ...more]),
    },
  };
}

function errorResponse(code: Shown): Json {
  const waits = code === "rate_limited" || code === "unavailable";
  return {
    description: MEANING[code],
    ...(waits && { headers: { "Retry-After": { description: "Seconds to wait.", schema: { type: "integer" } } } }),
    content: { [JSON_TYPE]: { schema: { $ref: "#/components/schemas/error" } } },
  };
}

/**
 * The OpenAPI 3.1 description of what any HTTP client can call, made of the operation table (docs/protocol.md §9.7):
 * the same bytes for the same table.
 */
export function openApi(): { readonly [key: string]: Json } {
  const names = Object.keys(operations);
  return {
    openapi: "3.1.0",
    info: {
      title: "keyhold",
      version: "1",
      summary: "Workspaces, keys and requests of a keyhold registry, for programs that read",
      description: DESCRIPTION,
      license: { name: "MIT", identifier: "MIT" },
    },
    jsonSchemaDialect: "https://json-schema.org/draft/2020-12/schema",
    servers: [
      {
        url: "https://{server}",
        variables: { server: { default: "localhost:7443", description: "Host and port of the registry." } },
      },
    ],
    tags: TAGS,
    paths: Object.fromEntries(
      names.filter(isDescribed).map((name) => [`${OPERATION_PATH}${name}`, { post: operationOf(name) }]),
    ),
    components: {
      securitySchemes: {
        [SCHEMES.integrator]: {
          type: "http",
          scheme: "bearer",
          bearerFormat: "kht_ and 43 characters",
          description: "A token of one workspace that reads, made by: keyhold workspace token create",
        },
        [SCHEMES.otp]: {
          type: "http",
          scheme: "bearer",
          bearerFormat: "kho_ and 43 characters",
          description: "A token of one key whose one-time codes it verifies, made by: keyhold otp token create",
        },
      },
      schemas: { error: plain(schemaOf(errorBody)) },
      responses: {
        ...Object.fromEntries([...ERRORS, ...TOKEN_ERRORS].map((code) => [code, errorResponse(code)])),
        error: {
          description: "Any other failure; the code says which.",
          content: { [JSON_TYPE]: { schema: { $ref: "#/components/schemas/error" } } },
        },
      },
    },
    "x-keyhold-client-only": names.filter((name) => !isDescribed(name)),
  };
}
