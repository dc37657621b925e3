// A protected resource by oauth4webapi under node:http: a peer of `tests.benchmarks.comparison`. It ends with its input.
import { createServer } from 'node:http';
import * as oauth from 'oauth4webapi';

const { issuer, resource, jwks } = JSON.parse(process.argv[2]);
const server = { issuer, jwks_uri: `${issuer}/jwks` };
const options = {
  requireDPoP: true,
  signingAlgorithms: ['ES256'],
  [oauth.customFetch]: async () => Response.json(jwks),
};
const body = '{"note":"four thousand seven hundred and eleven"}';

const listener = createServer(async (incoming, answer) => {
  const { authorization, dpop } = incoming.headers;
  let status = 200;
  try {
    const headers = { authorization, dpop };
    const request = new Request(`${resource}${incoming.url}`, { method: incoming.method, headers });
    await oauth.validateJwtAccessToken(server, request, resource, options);
  } catch {
    status = 401;
  }
  answer.writeHead(status, { 'content-type': 'application/json', 'content-length': Buffer.byteLength(body) });
  answer.end(body);
});
listener.listen(0, '127.0.0.1', () => console.log(listener.address().port));
process.stdin.resume().on('end', () => process.exit());
