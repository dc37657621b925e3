// A WebSocket, which a browser opens without header fields of ours: a ticket stands for token and proof.

const NAME = "dpop.ticket";

/** Open a WebSocket with a ticket, hear its first message and close it; or say that it didn't open. */
export function openSocket(url, ticket) {
  return new Promise((resolve) => {
    const socket = new WebSocket(url.replace(/^http/, "ws"), [NAME, `${NAME}.${ticket}`]);
    socket.onmessage = ({ data }) => {
      resolve({ opened: true, protocol: socket.protocol, data });
      socket.close();
    };
    socket.onclose = ({ code }) => resolve({ opened: false, code });
  });
}
