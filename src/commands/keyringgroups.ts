import type { Group } from "../ui/command.ts";
import { SECTION } from "./sections.ts";

/** Groups of commands about workspaces and the keyrings that they request keys from. */

const workspaceCommands = () => import("./workspace.ts");
const keyringCommands = () => import("./keyring.ts");
const tokenCommands = () => import("./workspacetoken.ts");
const operatorCommands = () => import("./server/registry.ts");

export const workspace: Group = {
  section: SECTION.keyrings,
  summary: "owners who request keys together",
  commands: {
    me: { summary: "the key by which workspaces know you", load: () => workspaceCommands().then((m) => m.workspaceMe) },
    create: { summary: "make one", load: () => workspaceCommands().then((m) => m.workspaceCreate) },
    list: { summary: "list yours", load: () => workspaceCommands().then((m) => m.workspaceList) },
    show: { summary: "owners, policy and balance", load: () => workspaceCommands().then((m) => m.workspaceShow) },
    owner: {
      summary: "who owns it",
      commands: {
        add: { summary: "propose another owner", load: () => workspaceCommands().then((m) => m.ownerAdd) },
        remove: { summary: "propose to remove one", load: () => workspaceCommands().then((m) => m.ownerRemove) },
      },
    },
    policy: {
      summary: "show or change who must agree",
      load: () => workspaceCommands().then((m) => m.workspacePolicy),
    },
    agree: { summary: "sign a change of another owner", load: () => workspaceCommands().then((m) => m.workspaceAgree) },
    inbox: { summary: "what waits for your word", load: () => workspaceCommands().then((m) => m.workspaceInbox) },
    keys: { summary: "its keys", load: () => workspaceCommands().then((m) => m.workspaceKeys) },
    ledger: { summary: "credits, fees and refunds", load: () => workspaceCommands().then((m) => m.workspaceLedger) },
    events: { summary: "what happened, by number", load: () => workspaceCommands().then((m) => m.workspaceEvents) },
    token: {
      summary: "programs that may read it",
      commands: {
        create: { summary: "make a token", load: () => tokenCommands().then((m) => m.tokenCreate) },
        list: { summary: "list the tokens", load: () => tokenCommands().then((m) => m.tokenList) },
        revoke: { summary: "make one void", load: () => tokenCommands().then((m) => m.tokenRevoke) },
      },
    },
    credit: {
      summary: "credit it (the registry's operator)",
      load: () => operatorCommands().then((m) => m.workspaceCredit),
    },
  },
};

export const keyring: Group = {
  section: SECTION.keyrings,
  summary: "parties that make keys for workspaces",
  commands: {
    create: { summary: "make one, of a federation", load: () => keyringCommands().then((m) => m.keyringCreate) },
    list: { summary: "list those of the registry", load: () => keyringCommands().then((m) => m.keyringList) },
    show: { summary: "parties, threshold and fees", load: () => keyringCommands().then((m) => m.keyringShow) },
    status: { summary: "how each party is", load: () => keyringCommands().then((m) => m.keyringStatus) },
    party: {
      summary: "who its parties are",
      commands: {
        add: { summary: "add one", load: () => keyringCommands().then((m) => m.partyAdd) },
        remove: { summary: "remove one", load: () => keyringCommands().then((m) => m.partyRemove) },
        clear: { summary: "end a quarantine", load: () => keyringCommands().then((m) => m.partyClear) },
      },
    },
    fees: { summary: "show or set what it costs", load: () => keyringCommands().then((m) => m.keyringFees) },
    threshold: { summary: "set how many must agree", load: () => keyringCommands().then((m) => m.keyringThreshold) },
    follow: {
      summary: "go by the federation's newest manifest",
      load: () => keyringCommands().then((m) => m.keyringFollow),
    },
    open: { summary: "take requests again", load: () => keyringCommands().then((m) => m.keyringOpen) },
    close: { summary: "take no more requests", load: () => keyringCommands().then((m) => m.keyringClose) },
    balances: {
      summary: "all accounts of the ledger (the registry's operator)",
      load: () => operatorCommands().then((m) => m.keyringBalances),
    },
    events: {
      summary: "what happened, by number (the registry's operator)",
      load: () => operatorCommands().then((m) => m.keyringEvents),
    },
    payout: {
      summary: "note that a party was paid (the registry's operator)",
      load: () => operatorCommands().then((m) => m.keyringPayout),
    },
  },
};
