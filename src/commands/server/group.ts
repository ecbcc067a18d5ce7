import type { Group } from "../../ui/command.ts";
import { SECTION } from "../sections.ts";

/** What an operator does on the machine of the own server. */
export const server: Group = {
  section: SECTION.server,
  summary: "administer the key server of this machine",
  commands: {
    init: { summary: "set up without running", load: () => import("./admin.ts").then((m) => m.serverInit) },
    check: {
      summary: "verify database, logs and bindings",
      load: () => import("./admin.ts").then((m) => m.serverCheck),
    },
    status: {
      summary: "figures of the server",
      load: () => import("./admin.ts").then((m) => m.serverStatus),
    },
    backup: {
      summary: "copy database and keys into two files",
      load: () => import("./backup.ts").then((m) => m.serverBackup),
    },
    rotate: {
      summary: "replace a key of the server",
      load: () => import("./admin.ts").then((m) => m.serverRotate),
    },
    restore: {
      summary: "make a server of a backup",
      load: () => import("./backup.ts").then((m) => m.serverRestore),
    },
    invite: {
      summary: "one-time registration codes",
      commands: {
        create: { summary: "make a code", load: () => import("./admin.ts").then((m) => m.inviteCreate) },
        list: { summary: "list the codes", load: () => import("./admin.ts").then((m) => m.inviteList) },
        revoke: {
          summary: "make a code void",
          load: () => import("./admin.ts").then((m) => m.inviteRevoke),
        },
      },
    },
    user: {
      summary: "accounts of the server",
      commands: {
        list: { summary: "list the accounts", load: () => import("./admin.ts").then((m) => m.userList) },
        disable: {
          summary: "refuse an account's logins",
          load: () => import("./admin.ts").then((m) => m.userDisable),
        },
        enable: {
          summary: "let an account log in again",
          load: () => import("./admin.ts").then((m) => m.userEnable),
        },
        "factor-reset": {
          summary: "take an account's second factor off",
          load: () => import("./admin.ts").then((m) => m.userFactorReset),
        },
        remove: { summary: "erase an account", load: () => import("./admin.ts").then((m) => m.userRemove) },
      },
    },
    ceremony: {
      summary: "ceremonies on this server",
      commands: {
        list: {
          summary: "list the ceremonies",
          load: () => import("./ceremony.ts").then((m) => m.ceremonyList),
        },
      },
    },
    federation: {
      summary: "federations of this server",
      commands: {
        list: {
          summary: "list drafts and memberships",
          load: () => import("./federation.ts").then((m) => m.federationList),
        },
        accept: {
          summary: "let the enclave sign a draft",
          load: () => import("./federation.ts").then((m) => m.federationAccept),
        },
        leave: {
          summary: "drop a draft, or end a membership",
          load: () => import("./federation.ts").then((m) => m.federationLeave),
        },
      },
    },
    connector: {
      summary: "accounts that act for registries of keyrings",
      commands: {
        allow: {
          summary: "let an account act for a registry",
          load: () => import("./connector.ts").then((m) => m.connectorAllow),
        },
        list: {
          summary: "list the accounts that may",
          load: () => import("./connector.ts").then((m) => m.connectorList),
        },
        revoke: {
          summary: "let an account act for it no more",
          load: () => import("./connector.ts").then((m) => m.connectorRevoke),
        },
      },
    },
    policy: {
      summary: "this server's own say in the use of keys",
      commands: {
        show: {
          summary: "show the operator's policy",
          load: () => import("./policy.ts").then((m) => m.operatorPolicyShow),
        },
        set: {
          summary: "set it, or its next version",
          load: () => import("./policy.ts").then((m) => m.operatorPolicySet),
        },
      },
    },
  },
};
