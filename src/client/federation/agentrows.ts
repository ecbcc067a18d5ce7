import {
  CONTROLS,
  CUSTODIES,
  FEDERATED_TYPES,
  IMPORT_ORIGINS,
  SERVERS_MAX,
  SIGN_FORMS,
} from "../../protocol/federation/kinds.ts";
import { list, nullable, oneOf, text, uint } from "../../wire/codec.ts";
import { data, many, maybe, or, orNull, params, type Reader } from "../agentparams.ts";
import { type Row, row } from "../agentrow.ts";
import type { FederationClient, GenerateFederated } from "../federationapi.ts";

type InputOf<M extends keyof FederationClient> = Parameters<FederationClient[M]> extends [infer I] ? I : object;

/** Bounded so that nothing is endless; what they may hold the client itself checks. */
const word = text({ max: 2_048 });
const requestId = text({ max: 64 });
const index = uint(255, 1);
/** The JSON of a policy's document: checked by whoever reads it. */
const json: Reader<unknown> = { decode: (value) => value };

const nothing = params<object>({});
const federation = params<{ readonly federation: string }>({ federation: word });
const request = params<{ readonly requestId: string }>({ requestId });
const party = params<{ readonly url: string; readonly pin: string }>({ url: word, pin: word });
const invite = params<{ readonly url: string; readonly code: string }>({ url: word, code: word });
const amount = params<{ readonly unit: string; readonly value: string }>({ unit: word, value: word });

const purpose = {
  name: word,
  federation: word,
  type: oneOf(FEDERATED_TYPES),
  bytes: or(uint(), 32),
  custody: or(oneOf(CUSTODIES), "self"),
  control: or(oneOf(CONTROLS), "unilateral"),
  policy: or(nullable(word), null),
} as const;

/** What each method of federations takes through the agent (docs/agent.md). */
export const FEDERATION_ROWS: { readonly [M in keyof FederationClient]: Row<InputOf<M>> } = {
  federations: row(nothing),
  createFederation: row(
    params<InputOf<"createFederation">>({ name: word, threshold: uint(), servers: many(party, 2 * SERVERS_MAX) }),
  ),
  joinFederation: row(
    params<InputOf<"joinFederation">>({
      url: word,
      pin: word,
      name: or(nullable(word), null),
      invites: or(many(invite, 2 * SERVERS_MAX), []),
    }),
  ),
  checkFederation: row(federation),
  federatedKeys: row(nothing),
  federatedKey: row(params<InputOf<"federatedKey">>({ key: word })),
  generateFederated: row(params<GenerateFederated>(purpose)),
  importFederated: row(
    params<InputOf<"importFederated">>({ ...purpose, value: data, origin: maybe(oneOf(IMPORT_ORIGINS)) }),
  ),
  signFederated: row(
    params<InputOf<"signFederated">>({
      key: word,
      message: data,
      amount: or(orNull(amount), null),
      form: or(oneOf(SIGN_FORMS), "message"),
      input: or(uint(0xffff), 0),
      hedge: maybe(nullable(word)),
    }),
    ({ key, hedge }) => (hedge ? [key, hedge] : [key]),
  ),
  releaseFederated: row(
    params<InputOf<"releaseFederated">>({ key: word, purpose: oneOf(["retrieve", "export"]) }),
    ({ key }) => [key],
  ),
  reshareFederated: row(
    params<InputOf<"reshareFederated">>({
      key: word,
      mode: oneOf(["repair", "refresh", "reshare"]),
      threshold: or(nullable(uint()), null),
      holders: or(nullable(list(index, { max: 255 })), null),
    }),
  ),
  federatedRequests: row(nothing),
  federatedRequest: row(request),
  // what it leads to may be a value, of whichever key
  continueRequest: row(request, () => "account"),
  cancelRequest: row(request),
  approvals: row(nothing),
  // the owner's word, which others rely on
  vote: row(
    params<InputOf<"vote">>({ requestId, verdict: oneOf(["approve", "reject"]), reason: or(text({ max: 512 }), "") }),
    () => "account",
  ),
  policies: row(federation),
  setPolicy: row(params<InputOf<"setPolicy">>({ federation: word, document: json }), () => "account"),
  auditFederation: row(federation),
};
