import type { Group } from "../ui/command.ts";
import { SECTION } from "./sections.ts";

/** Groups of commands about keys and the servers that hold them together. */

export const key: Group = {
  section: SECTION.secrets,
  summary: "key pairs: public keys, signatures, encrypted files",
  commands: {
    list: { summary: "list the key pairs", load: () => import("./key.ts").then((m) => m.keyList) },
    generate: {
      summary: "have a federation make a key",
      load: () => import("./federatedkey.ts").then((m) => m.keyGenerate),
    },
    show: { summary: "show a key of a federation", load: () => import("./federatedkey.ts").then((m) => m.keyShow) },
    public: { summary: "print a public key", load: () => import("./key.ts").then((m) => m.keyPublic) },
    sign: { summary: "sign a file", load: () => import("./keysign.ts").then((m) => m.default) },
    address: { summary: "the address of a key", load: () => import("./keyaddress.ts").then((m) => m.default) },
    retrieve: {
      summary: "put the bytes of a federation's key together",
      load: () => import("./federatedkey.ts").then((m) => m.keyRetrieve),
    },
    import: {
      summary: "share a key out among a federation",
      load: () => import("./federatedkey.ts").then((m) => m.keyImport),
    },
    export: {
      summary: "take a key out of its federation",
      load: () => import("./federatedkey.ts").then((m) => m.keyExport),
    },
    repair: {
      summary: "give a server the share that it lacks",
      load: () => import("./federatedkey.ts").then((m) => m.keyRepair),
    },
    refresh: {
      summary: "make all shares anew",
      load: () => import("./federatedkey.ts").then((m) => m.keyRefresh),
    },
    reshare: {
      summary: "change who holds a key, and how many it takes",
      load: () => import("./federatedkey.ts").then((m) => m.keyReshare),
    },
    encrypt: { summary: "encrypt a file", load: () => import("./keycrypt.ts").then((m) => m.keyEncrypt) },
    decrypt: { summary: "decrypt a file", load: () => import("./keycrypt.ts").then((m) => m.keyDecrypt) },
  },
};

export const federation: Group = {
  section: SECTION.federation,
  summary: "key servers that hold keys together",
  commands: {
    create: {
      summary: "lay a manifest before the servers",
      load: () => import("./federation.ts").then((m) => m.federationCreate),
    },
    join: {
      summary: "use one with this account",
      load: () => import("./federation.ts").then((m) => m.federationJoin),
    },
    show: { summary: "what it is made of", load: () => import("./federation.ts").then((m) => m.federationShow) },
    check: {
      summary: "ask every server how it is, and count shares",
      load: () => import("./federation.ts").then((m) => m.federationCheck),
    },
    members: {
      summary: "list its servers",
      load: () => import("./federation.ts").then((m) => m.federationMembers),
    },
  },
};

export const policy: Group = {
  section: SECTION.federation,
  summary: "who must agree to the use of a key",
  commands: {
    show: {
      summary: "show the policies of a federation",
      load: () => import("./policy.ts").then((m) => m.policyShow),
    },
    set: { summary: "make or change one", load: () => import("./policy.ts").then((m) => m.policySet) },
    test: { summary: "explain what one would decide", load: () => import("./policy.ts").then((m) => m.policyTest) },
  },
};

export const approval: Group = {
  section: SECTION.federation,
  summary: "requests that wait for your word",
  commands: {
    list: { summary: "list them", load: () => import("./approval.ts").then((m) => m.approvalList) },
    show: { summary: "what one asks for", load: () => import("./approval.ts").then((m) => m.approvalShow) },
    approve: { summary: "agree to one", load: () => import("./approval.ts").then((m) => m.approvalApprove) },
    reject: { summary: "refuse one", load: () => import("./approval.ts").then((m) => m.approvalReject) },
  },
};

export const request: Group = {
  section: SECTION.federation,
  summary: "your requests to federations and keyrings",
  commands: {
    key: {
      summary: "request a key from a keyring",
      load: () => import("./keyringrequest.ts").then((m) => m.requestKey),
    },
    signature: {
      summary: "request signatures by keys of a workspace",
      load: () => import("./keyringrequest.ts").then((m) => m.requestSignature),
    },
    list: { summary: "list them", load: () => import("./request.ts").then((m) => m.requestList) },
    show: {
      summary: "what each server says of one",
      load: () => import("./request.ts").then((m) => m.requestShow),
    },
    watch: {
      summary: "wait for one, and finish it",
      load: () => import("./request.ts").then((m) => m.requestWatch),
    },
    cancel: { summary: "give one up", load: () => import("./request.ts").then((m) => m.requestCancel) },
  },
};
