import { listenAgent } from "../../src/client/agentsocket.ts";

/** An agent in its own process for tests/client/agentsocket.test.ts: `agentchild.ts PATH`. */
await listenAgent(process.argv[2] ?? "", async () => process.pid);
process.stdout.write("listening\n");
