import io.debezium.engine.ChangeEvent;
import io.debezium.engine.DebeziumEngine;
import io.debezium.engine.format.Json;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import java.util.Properties;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;

/**
 * Follows tables with Debezium's own engine and prints each record on a line: its key and its value as JSON, with a
 * tab between them, and nothing where there is none.
 *
 * <p>Called with settings of the connector as name=value, and ends when it has printed a value with the word
 * "the-very-end" in it.
 */
public class Follow {
    public static void main(String[] arguments) throws Exception {
        PrintStream out = new PrintStream(System.out, true, StandardCharsets.UTF_8);
        Properties settings = new Properties();
        settings.setProperty("name", "engine");
        settings.setProperty("connector.class", "io.debezium.connector.postgresql.PostgresConnector");
        settings.setProperty("offset.storage", "org.apache.kafka.connect.storage.MemoryOffsetBackingStore");
        settings.setProperty("plugin.name", "pgoutput");
        settings.setProperty("topic.prefix", "debezium");
        for (String argument : arguments) {
            String[] setting = argument.split("=", 2);
            settings.setProperty(setting[0], setting[1]);
        }
        CountDownLatch ended = new CountDownLatch(1);
        DebeziumEngine<ChangeEvent<String, String>> engine = DebeziumEngine.create(Json.class)
            .using(settings)
            .notifying(record -> {
                if (ended.getCount() == 0) {
                    return;
                }
                String value = record.value() == null ? "" : record.value();
                out.println((record.key() == null ? "" : record.key()) + "\t" + value);
                if (value.contains("the-very-end")) {
                    ended.countDown();
                }
            })
            .using((success, message, error) -> {
                if (!success) {
                    System.err.println(message);
                    if (error != null) {
                        error.printStackTrace();
                    }
                    System.exit(1);
                }
            })
            .build();
        ExecutorService executor = Executors.newSingleThreadExecutor();
        executor.execute(engine);
        ended.await();
        engine.close();
        executor.shutdown();
        System.exit(0);
    }
}
