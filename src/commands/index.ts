import type { Group } from "../ui/command.ts";
import type { InternalEntries } from "../ui/start.ts";
import { ceremony, otp } from "./ceremonygroup.ts";
import { connector } from "./connectorgroup.ts";
import { approval, federation, key, policy, request } from "./federationgroups.ts";
import { keyring, workspace } from "./keyringgroups.ts";
import { SECTION } from "./sections.ts";
import { server } from "./server/group.ts";
import { TOPICS } from "./topicnames.ts";

/** The whole command line: names, summaries, and how to load each command. Help texts follow this order. */
export const root: Group = {
  topics: TOPICS,
  summary: "keyhold keeps secrets end to end encrypted: client, local vault and key server in one program.",
  commands: {
    serve: {
      section: SECTION.server,
      summary: "run the key server",
      load: () => import("./serve.ts").then((m) => m.default),
    },
    server,
    init: {
      section: SECTION.account,
      summary: "make a vault and a first profile",
      load: () => import("./init.ts").then((m) => m.default),
    },
    register: {
      section: SECTION.account,
      summary: "register an account on a server",
      load: () => import("./register.ts").then((m) => m.default),
    },
    login: {
      section: SECTION.account,
      summary: "open a session that the agent holds",
      load: () => import("./login.ts").then((m) => m.default),
    },
    logout: {
      section: SECTION.account,
      summary: "close the session and lock",
      load: () => import("./logout.ts").then((m) => m.default),
    },
    status: {
      section: SECTION.account,
      summary: "server, session, vault and what is pending",
      load: () => import("./status.ts").then((m) => m.default),
    },
    account: {
      section: SECTION.account,
      summary: "password, sessions and devices",
      commands: {
        password: { summary: "change the password", load: () => import("./account.ts").then((m) => m.accountPassword) },
        sessions: {
          summary: "list and close sessions",
          load: () => import("./account.ts").then((m) => m.accountSessions),
        },
        "recovery-kit": {
          summary: "make 24 words that open the account",
          load: () => import("./recovery.ts").then((m) => m.recoveryKit),
        },
        recover: {
          summary: "a new password, by the recovery kit",
          load: () => import("./recovery.ts").then((m) => m.accountRecover),
        },
        factor: {
          summary: "a code beside the password at each login",
          commands: {
            enable: {
              summary: "set a second factor, or replace it",
              load: () => import("./factor.ts").then((m) => m.factorEnable),
            },
            disable: {
              summary: "take it off the account",
              load: () => import("./factor.ts").then((m) => m.factorDisable),
            },
            status: { summary: "whether there is one", load: () => import("./factor.ts").then((m) => m.factorStatus) },
            codes: { summary: "make new recovery codes", load: () => import("./factor.ts").then((m) => m.factorCodes) },
          },
        },
        delete: {
          summary: "delete the account for good",
          load: () => import("./account.ts").then((m) => m.accountDelete),
        },
        device: {
          summary: "devices of the account",
          commands: {
            list: { summary: "list the devices", load: () => import("./account.ts").then((m) => m.accountDevices) },
            link: {
              summary: "show a code for a new device",
              load: () => import("./device.ts").then((m) => m.deviceLink),
            },
            accept: {
              summary: "make this home a device, by a code",
              load: () => import("./device.ts").then((m) => m.deviceAccept),
            },
            revoke: {
              summary: "take a device off the account",
              load: () => import("./account.ts").then((m) => m.deviceRevoke),
            },
          },
        },
      },
    },
    unlock: {
      section: SECTION.account,
      summary: "open the vault for the commands that follow",
      load: () => import("./unlock.ts").then((m) => m.unlockCommand),
    },
    lock: {
      section: SECTION.account,
      summary: "forget the keys now",
      load: () => import("./unlock.ts").then((m) => m.lockCommand),
    },
    agent: {
      section: SECTION.account,
      summary: "the process that holds the keys between commands",
      commands: {
        start: { summary: "start it", load: () => import("./unlock.ts").then((m) => m.agentStart) },
        stop: { summary: "stop it", load: () => import("./unlock.ts").then((m) => m.agentStop) },
        status: { summary: "whether it runs", load: () => import("./unlock.ts").then((m) => m.agentStatus) },
      },
    },
    generate: {
      section: SECTION.secrets,
      summary: "generate a secret and store it",
      load: () => import("./generate.ts").then((m) => m.default),
    },
    store: {
      section: SECTION.secrets,
      summary: "store a value",
      load: () => import("./store.ts").then((m) => m.default),
    },
    get: {
      section: SECTION.secrets,
      summary: "show a secret, or copy it",
      load: () => import("./get.ts").then((m) => m.default),
    },
    edit: {
      section: SECTION.secrets,
      summary: "change a secret's fields, by questions or in an editor",
      load: () => import("./edit.ts").then((m) => m.default),
    },
    read: {
      section: SECTION.secrets,
      summary: "print a value, byte for byte",
      load: () => import("./read.ts").then((m) => m.default),
    },
    list: {
      section: SECTION.secrets,
      summary: "list secrets",
      load: () => import("./list.ts").then((m) => m.listCommand),
    },
    search: {
      section: SECTION.secrets,
      summary: "find secrets by name or tag",
      load: () => import("./list.ts").then((m) => m.searchCommand),
    },
    rename: {
      section: SECTION.secrets,
      summary: "give a secret another name",
      load: () => import("./change.ts").then((m) => m.renameCommand),
    },
    tag: {
      section: SECTION.secrets,
      summary: "add and remove tags",
      load: () => import("./change.ts").then((m) => m.tagCommand),
    },
    remove: {
      section: SECTION.secrets,
      summary: "remove a secret",
      load: () => import("./change.ts").then((m) => m.removeCommand),
    },
    history: {
      section: SECTION.secrets,
      summary: "show a secret's versions",
      load: () => import("./change.ts").then((m) => m.historyCommand),
    },
    restore: {
      section: SECTION.secrets,
      summary: "make an older version the newest",
      load: () => import("./change.ts").then((m) => m.restoreCommand),
    },
    report: {
      section: SECTION.secrets,
      summary: "what is expired, weak, reused or old",
      load: () => import("./report.ts").then((m) => m.default),
    },
    import: {
      section: SECTION.secrets,
      summary: "import secrets from a file",
      load: () => import("./import.ts").then((m) => m.default),
    },
    export: {
      section: SECTION.secrets,
      summary: "export secrets to a file",
      load: () => import("./export.ts").then((m) => m.default),
    },
    run: {
      section: SECTION.secrets,
      summary: "run a command with secrets in its environment",
      load: () => import("./run.ts").then((m) => m.default),
    },
    inject: {
      section: SECTION.secrets,
      summary: "fill a template with secrets",
      load: () => import("./inject.ts").then((m) => m.default),
    },
    otp,
    sync: {
      section: SECTION.secrets,
      summary: "bring the vault up to date",
      load: () => import("./sync.ts").then((m) => m.default),
    },
    audit: {
      section: SECTION.secrets,
      summary: "the log of what was done",
      commands: {
        list: { summary: "list events", load: () => import("./audit.ts").then((m) => m.auditList) },
        verify: {
          summary: "verify that the log is whole",
          load: () => import("./audit.ts").then((m) => m.auditVerify),
        },
        export: { summary: "write the log to a file", load: () => import("./audit.ts").then((m) => m.auditExport) },
      },
    },
    vault: {
      section: SECTION.secrets,
      summary: "the local vault file",
      commands: {
        status: { summary: "where it lies", load: () => import("./vault.ts").then((m) => m.vaultStatus) },
        check: { summary: "verify everything in it", load: () => import("./vault.ts").then((m) => m.vaultCheck) },
        rekey: { summary: "give it a new password", load: () => import("./vault.ts").then((m) => m.vaultRekey) },
        backup: { summary: "copy it", load: () => import("./vault.ts").then((m) => m.vaultBackup) },
        detach: {
          summary: "keep it without its account",
          load: () => import("./vault.ts").then((m) => m.vaultDetach),
        },
        restore: { summary: "put a backup back", load: () => import("./vault.ts").then((m) => m.vaultRestore) },
        "recovery-kit": {
          summary: "make 24 words that open it",
          load: () => import("./vaultkit.ts").then((m) => m.vaultRecoveryKit),
        },
        recover: {
          summary: "a new password, by the recovery kit",
          load: () => import("./vaultkit.ts").then((m) => m.vaultRecover),
        },
      },
    },
    key,
    federation,
    policy,
    approval,
    request,
    workspace,
    keyring,
    connector,
    ceremony,
    "ssh-agent": {
      section: SECTION.secrets,
      summary: "serve keys to ssh",
      load: () => import("./sshagent.ts").then((m) => m.default),
    },
    "git-credential": {
      section: SECTION.secrets,
      summary: "answer git's question for a login",
      load: () => import("./gitcredential.ts").then((m) => m.default),
    },
    doctor: {
      section: SECTION.rest,
      summary: "look for what is wrong, and say how to mend it",
      load: () => import("./doctor.ts").then((m) => m.default),
    },
    demo: {
      section: SECTION.rest,
      summary: "walk the main job on real throwaway processes",
      load: () => import("./demo.ts").then((m) => m.default),
    },
    profile: {
      section: SECTION.rest,
      summary: "servers and accounts of this home",
      commands: {
        add: { summary: "how to make one", load: () => import("./profile.ts").then((m) => m.profileAdd) },
        use: { summary: "choose the default one", load: () => import("./profile.ts").then((m) => m.profileUse) },
        list: { summary: "list them", load: () => import("./profile.ts").then((m) => m.profileList) },
        authority: {
          summary: "print the authority behind its server's certificate",
          load: () => import("./profile.ts").then((m) => m.profileAuthority),
        },
        remove: {
          summary: "remove one from this device",
          load: () => import("./profile.ts").then((m) => m.profileRemove),
        },
      },
    },
    config: {
      section: SECTION.rest,
      summary: "show settings and where they come from",
      commands: {
        show: { summary: "show the settings in force", load: () => import("./config.ts").then((m) => m.show) },
        defaults: { summary: "print the table of defaults", load: () => import("./config.ts").then((m) => m.defaults) },
        path: { summary: "print the directories in use", load: () => import("./config.ts").then((m) => m.path) },
      },
    },
    completion: {
      section: SECTION.rest,
      summary: "print a completion script for a shell",
      load: () => import("./completion.ts").then((m) => m.default),
    },
    man: {
      section: SECTION.rest,
      summary: "print the manual page",
      load: () => import("./man.ts").then((m) => m.default),
    },
    openapi: {
      section: SECTION.rest,
      summary: "print what programs can call, as OpenAPI",
      load: () => import("./openapi.ts").then((m) => m.default),
    },
    help: {
      section: SECTION.rest,
      summary: "explain a command or the exit codes",
      load: () => import("./help.ts").then((m) => m.default),
    },
    version: {
      section: SECTION.rest,
      summary: "print the version",
      load: () => import("./version.ts").then((m) => m.default),
    },
  },
};

/** What this program starts itself with; no part of the command line. */
export const internal: InternalEntries = {
  __agent: () => import("../ui/agentprocess.ts").then((m) => m.agentMain),
  __enclave: () => import("../enclave/process.ts").then((m) => m.enclaveMain),
  __names: () => import("../ui/names.ts").then((m) => m.namesMain),
  "__clear-clipboard": () => import("../ui/clipboard.ts").then((m) => m.clearClipboardLater),
};
