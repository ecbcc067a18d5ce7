import type { Group } from "../ui/command.ts";
import { SECTION } from "./sections.ts";

/** Groups of commands about ceremonies, and about one-time passwords. */

const ceremonyCommands = () => import("./ceremony.ts");
const openCommands = () => import("./ceremonyopen.ts");
const issueCommands = () => import("./otpissue.ts");
const requestCommands = () => import("./otprequest.ts");
const tokenCommands = () => import("./otptoken.ts");

export const ceremony: Group = {
  section: SECTION.ceremonies,
  summary: "keys that several people make together",
  commands: {
    open: { summary: "begin one, and invite", load: () => openCommands().then((m) => m.ceremonyOpen) },
    join: {
      summary: "take part, with an invite or where you left",
      load: () => import("./ceremonyjoin.ts").then((m) => m.ceremonyJoin),
    },
    status: { summary: "all of them, or who is in one", load: () => ceremonyCommands().then((m) => m.ceremonyStatus) },
    invites: { summary: "show the invites once more", load: () => openCommands().then((m) => m.ceremonyInvites) },
    close: {
      summary: "end the time to join, or all of it",
      load: () => ceremonyCommands().then((m) => m.ceremonyClose),
    },
    transcript: {
      summary: "write down all that happened, as a proof",
      load: () => ceremonyCommands().then((m) => m.ceremonyTranscript),
    },
    verify: {
      summary: "verify a transcript, without a server",
      load: () => import("./ceremonyverify.ts").then((m) => m.ceremonyVerify),
    },
    opening: {
      summary: "write down what you put into the key",
      load: () => ceremonyCommands().then((m) => m.ceremonyOpening),
    },
    collect: {
      summary: "take the value out of the server's store",
      load: () => import("./ceremonycollect.ts").then((m) => m.ceremonyCollect),
    },
    approve: {
      summary: "agree that somebody takes the value out",
      load: () => ceremonyCommands().then((m) => m.ceremonyApprove),
    },
  },
};

export const otp: Group = {
  section: SECTION.secrets,
  summary: "one-time passwords, your own and those that are handed out",
  commands: {
    add: { summary: "keep one, from a key or QR code", load: () => import("./otp.ts").then((m) => m.otpAdd) },
    code: { summary: "print the code of now", load: () => import("./otp.ts").then((m) => m.otpCodeCommand) },
    qr: { summary: "show it as a QR code", load: () => import("./otp.ts").then((m) => m.otpQr) },
    issue: { summary: "let others ask the server for codes", load: () => issueCommands().then((m) => m.otpIssue) },
    request: { summary: "ask the server for one code", load: () => requestCommands().then((m) => m.otpRequest) },
    verify: { summary: "verify a code, which uses it up", load: () => requestCommands().then((m) => m.otpVerify) },
    entries: { summary: "list keys that are handed out", load: () => issueCommands().then((m) => m.otpEntries) },
    handouts: { summary: "list codes that were handed out", load: () => issueCommands().then((m) => m.otpHandouts) },
    revoke: { summary: "end a key, a grant or a code", load: () => issueCommands().then((m) => m.otpRevoke) },
    receive: { summary: "bring a key from another server", load: () => issueCommands().then((m) => m.otpReceive) },
    device: {
      summary: "the key by which servers know this vault",
      load: () => issueCommands().then((m) => m.otpDevice),
    },
    token: {
      summary: "tokens of services that verify codes",
      commands: {
        create: { summary: "make one", load: () => tokenCommands().then((m) => m.otpTokenCreate) },
        list: { summary: "list them", load: () => tokenCommands().then((m) => m.otpTokenList) },
        revoke: { summary: "revoke one", load: () => tokenCommands().then((m) => m.otpTokenRevoke) },
      },
    },
  },
};
