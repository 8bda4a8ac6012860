import java.nio.file.Path;
import java.util.Scanner;
import org.apache.spark.sql.SparkSession;

/** Answers questions about Delta tables with Spark, as {@code read.py} does with others. */
public class Read {
    public static void main(String[] arguments) throws Exception {
        Path folder = Path.of(arguments[0]);
        try (SparkSession spark = SparkSession.builder()
                .master("local[2]")
                .config("spark.sql.extensions", "io.delta.sql.DeltaSparkSessionExtension")
                .config("spark.sql.catalog.spark_catalog", "org.apache.spark.sql.delta.catalog.DeltaCatalog")
                .config("spark.sql.warehouse.dir", folder.resolve("warehouse").toString())
                .config("spark.local.dir", folder.toString())
                .config("spark.sql.session.timeZone", "UTC")
                .config("spark.sql.parquet.outputTimestampType", "TIMESTAMP_MICROS")
                // Small tables are spread over no more tasks than there are cores.
                .config("spark.sql.shuffle.partitions", "2")
                .config("spark.databricks.delta.snapshotPartitions", "2")
                .config("spark.driver.host", "127.0.0.1")
                .config("spark.driver.bindAddress", "127.0.0.1")
                .config("spark.ui.enabled", "false")
                .config("spark.log.level", "ERROR")
                .getOrCreate();
                Scanner questions = new Scanner(System.in, "UTF-8")) {
            while (questions.hasNextLine()) {
                String[] question = questions.nextLine().split("\t");
                try {
                    spark.read().format("delta").load(question[0]).createOrReplaceTempView("t");
                    spark.sql(question[1]).coalesce(1).write().parquet(question[2]);
                    System.out.println("reader: answered");
                } catch (Exception error) {
                    System.out.println("reader: refused: " + error.toString().replace('\n', ' '));
                }
            }
        }
    }
}
