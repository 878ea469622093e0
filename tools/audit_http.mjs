// GraphQL over HTTP, checked from outside by graphql-http's own audits: node tools/audit_http.mjs URL KEY
import { auditServer } from "graphql-http";

const [url, key] = process.argv.slice(2);
const fetchFn = (input, init = {}) => fetch(input, { ...init, headers: { ...init.headers, authorization: `Bearer ${key}` } });
const results = await auditServer({ url, fetchFn });
for (const { status, id, name, reason } of results) if (status !== "ok") console.log(status, id, name, reason ?? "");
const passed = results.filter(({ status }) => status === "ok").length;
console.log(`${passed} of ${results.length}`);
process.exit(passed === results.length ? 0 : 1);
